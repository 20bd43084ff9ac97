"""Calibration rows of data sets of the hub: drawn by the seed, at one commit, and from then on a file's rows."""

import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import WeakFileLock
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, T5Config

import checkpoints
from architectures import clip_vision, derived, llama
from hub_server import Hub, stop
from merging import Merge, make_merge, warnings_in
from multimodal import write_processor
from parametrize import slow
from regstream.data import dataset_sampler as drawing
from regstream.data import row_writer as pieces
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.loading import load_calibration
from regstream.data.target_rows import Decoder
from regstream.errors import InputError, Interrupted, ResumeError
from regstream.events import Event, StepStarted
from regstream.manifest.schema import Calibration
from regstream.output.record import read_provenance
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run
from regstream.storage.journal import Journal

Command = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("data_sets")

NAME = "org/rows"
COUNT = 60
CPU = torch.device("cpu")
T5 = T5Config(d_model=8, d_ff=16, d_kv=4, num_heads=2, num_layers=1, vocab_size=checkpoints.VOCABULARY)
IDS = checkpoints.random_rows(checkpoints.VOCABULARY, [5 + index % 20 for index in range(COUNT)], seed=3)


def picture(index: int) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def write_rows(folder: Path, count: int = COUNT) -> Path:
    """A repository of parquet files, as the library writes them: two of a split, in groups of ten rows."""
    rows = datasets.Dataset.from_dict(
        {
            "text": [f"{checkpoints.SENTENCES[index % 6]} ({index})" for index in range(count)],
            "input_ids": IDS[:count],
            "messages": [[{"role": "user", "content": f"{index}?"}] for index in range(count)],
            "image": [{"bytes": picture(index), "path": f"{index}.png"} for index in range(count)],
            "label": [index % 3 for index in range(count)],
        },
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "input_ids": datasets.List(datasets.Value("int32")),
                "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=["a", "b", "c"]),
            }
        ),
    )  # fmt: skip
    (folder / "data").mkdir(parents=True)
    for index in range(2):
        half = rows.select(range(index * count // 2, (index + 1) * count // 2))
        half.to_parquet(folder / f"data/train-{index:05d}-of-00002.parquet", batch_size=10)
    rows.select(range(4)).to_parquet(folder / "data/test-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("dataset") / "rows")


@pytest.fixture
def rows(hub: Hub, written: Path) -> str:
    """The data set's commit."""
    return hub.add(f"datasets/{NAME}", written)


def asked(**settings: Any) -> Calibration:
    return Calibration.model_validate({"dataset": NAME, "split": "train", "rows": 12} | settings)


def column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path).column(name).to_pylist()
    return values


@pytest.mark.slow
def test_rows_are_drawn_from_all_of_it_by_the_seed(rows: str, hub: Hub) -> None:
    drawing = DatasetSampler()
    drawn = column(drawing.sample(asked(), "input_ids", 0), "input_ids")
    assert drawing.commits == {f"datasets/{NAME}": rows}
    places = [IDS.index(ids) for ids in drawn]
    assert len(set(places)) == 12
    assert min(places) < COUNT // 2 < max(places)  # of both files
    assert places != sorted(places) != list(range(12))
    requests = len(hub.requests)
    again = column(DatasetSampler(drawing.commits).sample(asked(), "input_ids", 0), "input_ids")
    assert again == drawn
    assert len(hub.requests) == requests + 1  # whether it has moved on
    other = column(DatasetSampler().sample(asked(), "input_ids", 1), "input_ids")
    assert other != drawn
    shutil.rmtree(constants.HF_ASSETS_CACHE)
    assert column(DatasetSampler().sample(asked(), "input_ids", 0), "input_ids") == drawn


def test_all_rows_in_their_order(rows: str) -> None:
    assert column(DatasetSampler().sample(asked(rows=None), "input_ids", 0), "input_ids") == IDS
    assert column(DatasetSampler().sample(asked(rows=None, split="test"), "input_ids", 0), "input_ids") == IDS[:4]


def test_rows_are_written_piece_by_piece(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_CHUNK_BYTES", 8 * len(picture(0)))
    kept = DatasetSampler().sample(asked(rows=None), "image", 0)
    assert [row["bytes"] for row in column(kept, "image")] == [picture(index) for index in range(COUNT)]
    metadata = pq.read_metadata(kept)
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(counts) == COUNT
    assert max(counts) <= 8


@pytest.mark.slow
def test_who_draws_the_same_rows_at_once_waits(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began, both, times = threading.Event(), threading.Barrier(2), list[Path]()
    write_rows = pieces.write_rows

    def counted(path: Path, drawn: Any) -> int:
        times.append(path)
        began.set()
        both.wait(60)
        return write_rows(path, drawn)

    def lock(path: Path) -> Any:
        if began.is_set():
            both.wait(60)
        return WeakFileLock(path)

    monkeypatch.setattr(pieces, "write_rows", counted)
    monkeypatch.setattr(drawing, "WeakFileLock", lock)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(DatasetSampler().sample, asked(), "input_ids", 0)
        assert began.wait(60)
        second = pool.submit(DatasetSampler().sample, asked(), "input_ids", 0)
        assert first.result() == second.result()
    assert times == [first.result()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("field", ["messages", *map(slow, ["text", "input_ids", "Q: {text}\nA: {text}"])])
def test_the_same_set_as_from_a_file_of_the_rows(rows: str, tokenizer: Path, tmp_path: Path, field: str) -> None:
    config = LlamaConfig(vocab_size=checkpoints.VOCABULARY)
    options: dict[str, Any] = {"architecture": llama(), "config": config, "base": tokenizer, "seed": 5}
    warnings: list[str] = []
    drawn = load_calibration(asked(field=field), **options, warn=warnings.append)
    kept = DatasetSampler().sample(asked(field=field), field, 5)
    file = tmp_path / "rows.parquet"
    shutil.copy(kept, file)
    read = load_calibration(Calibration(path=file, field=field), **options, warn=warnings.append)
    assert drawn.digest == read.digest
    assert sum(len(batch.lengths) for batch in drawn.batches) == 12
    assert warnings == []


@pytest.mark.parametrize(("field", "target"), [("text", "Answer: {label_text}"), slow("input_ids", "labels")])
def test_a_row_has_its_target(tmp_path: Path, hub: Hub, tokenizer: Path, field: str, target: str) -> None:
    columns = {
        "text": checkpoints.SENTENCES[:6],
        "input_ids": IDS[:6],
        "label_text": ["a", "b", "c"] * 2,
        "labels": IDS[6:12],
    }
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    hub.add(f"datasets/{NAME}", tmp_path)
    options: dict[str, Any] = {"architecture": derived(T5), "config": T5, "base": tokenizer, "seed": 5, "warn": print}
    options["decoder"] = Decoder(shift=lambda labels: labels)
    table: dict[str, Any] = {"field": field, "target": target, "rows": 4}
    drawn: Any = load_calibration(asked(**table), **options)
    kept = DatasetSampler().sample(asked(**table), field, 5, target=target)
    assert pq.read_schema(kept).names == [field, target if target == "labels" else "label_text"]
    assert drawn.digest == load_calibration(Calibration(path=kept, **table), **options).digest
    assert len(drawn.batches) == len(drawn.targets) == 4
    with pytest.raises(InputError, match='no column "summary"; there are text, input_ids'):
        load_calibration(asked(**table | {"target": "{summary}"}), **options)


@pytest.mark.slow
def test_images_with_their_labels(rows: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    checkpoints.write_image_processor(base)
    config = CLIPVisionConfig(image_size=checkpoints.IMAGE_SIZE, patch_size=checkpoints.PATCH_SIZE)
    loaded: Any = load_calibration(
        asked(), architecture=clip_vision(), config=config, base=base, seed=0, warn=lambda _: None
    )
    assert len(loaded) == 12
    kept = pq.read_table(DatasetSampler().sample(asked(), "image", 0)).to_pylist()
    pictures = {picture(index): index for index in range(COUNT)}
    places = [pictures[row["image"]["bytes"]] for row in kept]  # the very bytes, not encoded anew
    labels = [int(label) for index in range(len(loaded.batches)) for label in loaded.labels(index)]
    assert labels == [place % 3 for place in places]
    pixels = loaded.inputs(0, dtype=torch.float32, device=CPU)["pixel_values"]
    assert pixels.shape[1:] == (3, checkpoints.IMAGE_SIZE, checkpoints.IMAGE_SIZE)


@pytest.mark.slow
def test_images_with_their_texts(rows: str, tmp_path: Path) -> None:
    base, asked_for = write_processor(tmp_path / "base", "llava"), {"field": "<image>{text}", "images": "image"}
    options: dict[str, Any] = {"architecture": llama(), "config": LlamaConfig(vocab_size=320), "base": base, "seed": 5}
    loaded: Any = load_calibration(asked(**asked_for), **options, warn=lambda _: None)
    assert len(loaded) == 12
    assert loaded.image_files == ()
    assert all("pixel_values" in loaded.inputs(index, dtype=torch.float32, device=CPU) for index in range(12))
    with pytest.raises(InputError, match='no column "picture"; there are text'):
        load_calibration(asked(images="picture"), **options, warn=lambda _: None)


@pytest.mark.slow
def test_fewer_rows_than_were_asked_for_are_told(rows: str, tokenizer: Path) -> None:
    warnings: list[str] = []
    load_calibration(
        asked(split="test", field="input_ids"),
        architecture=llama(),
        config=LlamaConfig(vocab_size=checkpoints.VOCABULARY),
        base=tokenizer,
        seed=0,
        warn=warnings.append,
    )
    assert len(warnings) == 1
    assert warnings[0].startswith("org-rows-test-")
    assert warnings[0].endswith("has 4 rows, fewer than rows = 12; using all 4")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no data set": ({"dataset": "org/none"}, "org/none@main: not on the hub, or private: no token is set"),
    "no revision": ({"revision": "v9"}, "org/rows@v9: the hub has no such revision"),
    "no split": ({"split": "valid"}, 'no split "valid"; there are '),
    "no split named": ({"split": None}, "several splits, and none is named; there are "),
    "no column": ({}, 'no column "words"; there are text, input_ids, messages, image, label'),
    "no configuration": ({"config": "french"}, "french"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line(rows: str, kind: str) -> None:
    settings, line = MISTAKES[kind]
    with pytest.raises(InputError) as caught:
        DatasetSampler().sample(asked(**settings), "words" if kind == "no column" else "text", 0)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_without_rows_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Nothing\n")
    hub.add(f"datasets/{NAME}", tmp_path)
    with pytest.raises(InputError, match="data set org/rows at "):
        DatasetSampler().sample(asked(), "text", 0)


def test_without_the_package_it_is_told_how_to_get_it(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'takes the package datasets: pip install "regstream\[datasets\]"'):
        DatasetSampler().sample(asked(), "text", 0)


@pytest.mark.slow
def test_offline_what_was_drawn_is_there_and_all_else_is_told(
    rows: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = DatasetSampler().sample(asked(), "input_ids", 0)
    stop(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert DatasetSampler().sample(asked(), "input_ids", 0) == drawn
    with pytest.raises(InputError, match="are not in the cache, and HF_HUB_OFFLINE=1 forbids network access"):
        DatasetSampler().sample(asked(), "input_ids", 1)
    with pytest.raises(InputError, match="org/other@main: not in the cache, and HF_HUB_OFFLINE"):
        DatasetSampler().sample(asked(dataset="org/other"), "input_ids", 0)


@pytest.fixture
def merge(tmp_path: Path, rows: str) -> Merge:
    """A merge whose candidates' rows are the hub's."""
    (tmp_path / "merge").mkdir()
    others = 'others.embeddings = "base"\nothers.head = "base"\n'
    made = make_merge(tmp_path / "merge", layers=2, hidden=8, candidates=2, num_rows=4, rules=others)
    text = made.manifest.read_text()
    for index in range(2):
        text = text.replace(f'path = "task{index}.jsonl"', f'dataset = "{NAME}"\nsplit = "train"\nrows = {8 + index}')
    made.manifest.write_text(text)
    return made


def stopping() -> Callable[[Event], None]:
    """A listener that ends a run half way."""

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            raise Interrupted("here")

    return listen


@pytest.mark.slow
def test_a_run_goes_on_with_the_rows_it_began_with(merge: Merge, rows: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        merge.run(listener=stopping())
    now = hub.add(f"datasets/{NAME}", write_rows(tmp_path / "later", 20))
    assert now != rows
    shutil.rmtree(constants.HF_ASSETS_CACHE)  # drawn again, from the same commit
    settled = Journal.begun_identity(merge.read().workdir).get("hub", {})
    assert settled == {f"datasets/{NAME}": rows}
    events: list[Event] = []
    run(make_plan(merge.read(), commits=settled, listener=events.append))
    told = warnings_in(events)
    assert told == [f"datasets/{NAME} is at {now} now; the run continues with {rows}"]
    record = read_provenance(merge.output)
    assert record["identity"]["hub"] == {f"datasets/{NAME}": rows}
    assert len(record["identity"]["calibration"]) == 2
    assert ModelCard.load(merge.output / "README.md").data.to_dict()["datasets"] == [NAME]


@pytest.mark.slow
def test_other_rows_are_another_merge(merge: Merge, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        merge.run(listener=stopping())
    hub.add(f"datasets/{NAME}", write_rows(tmp_path / "later", 20))
    with pytest.raises(ResumeError, match="calibration task0"):
        merge.run()  # by what the data set is now, as with --restart


@pytest.mark.slow
def test_the_command_says_what_regstream_has_to_say_and_nothing_else(
    merge: Merge, command: Command, new_interpreter: Command
) -> None:
    planned = new_interpreter("plan", merge.manifest)
    assert (planned.returncode, planned.stderr) == (0, "")
    merge.manifest.write_text(merge.manifest.read_text().replace('split = "train"', 'split = "valid"'))
    refused = command("plan", merge.manifest)
    assert refused.returncode == 4
    assert 'candidate "task0": calibration: data set org/rows at ' in refused.stderr
    assert refused.stderr.count("\n") == 1
