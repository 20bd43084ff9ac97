"""What stands beside the shards: loads as a model, says how it was made, and nothing of where."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig

import checkpoints
from merging import Merge, make_merge, read_result
from parametrize import slow
from regstream.errors import InputError
from regstream.events import Event, Warned
from regstream.output.add_results import add_results
from regstream.output.record import PROVENANCE, is_published, read_provenance, read_record
from regstream.output.record_schema import BiasRecord, EvaluationRecord, EvaluationRow
from regstream.output.report_files import write_report_files
from regstream.output.verify import verify_files
from regstream.storage import durable

CARD = """---
license: llama3.1
tags: [base]
---
# A base
"""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A finished merge."""

    merge: Merge
    family: checkpoints.Family

    @property
    def folder(self) -> Path:
        return self.merge.output

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module", params=["llama", "clip-full", *map(slow, ["llama-tied", "bert", "vit"])])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    # More rows asked for than there are: the warning of it is part of the record.
    merge = make_merge(folder, request.param, layers=2, candidates=2, num_rows=4, calibration="rows = 99")
    (merge.folders.base / "README.md").write_text(CARD)
    before = os.umask(0o027)
    merge.run()
    os.umask(before)
    return Published(merge=merge, family=request.param)


def test_transformers_loads_it_with_every_parameter_in_its_place(published: Published) -> None:
    result = read_result(published.folder)
    base = checkpoints.load(published.merge.folders.base)
    assert {name: tensor.shape for name, tensor in result.items()} == {n: p.shape for n, p in base.named_parameters()}
    assert sum(tensor.numel() for tensor in result.values()) == sum(p.numel() for p in base.parameters())


def test_what_was_tied_is_tied(published: Published) -> None:
    def tied(folder: Path) -> bool:
        model: Any = checkpoints.load(folder)
        return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)

    if published.family in checkpoints.CAUSAL_FAMILIES:
        assert tied(published.folder) == tied(published.merge.folders.base)


def test_no_file_tells_of_the_machine_it_was_made_on(published: Published) -> None:
    traces = [str(published.merge.manifest.parent), str(Path.home()), "/tmp/"]
    for path in published.folder.rglob("*"):
        content = path.read_bytes()
        for trace in traces:
            assert trace.encode() not in content, f"{path.name} has {trace}"


def test_no_state_and_no_half_written_file_is_left(published: Published) -> None:
    names = {path.name for path in published.folder.iterdir()}
    assert not any(name.endswith(".partial") or name == ".regstream" for name in names)
    record = read_provenance(published.folder)
    assert names == {*record["files"], PROVENANCE, "regstream.measured.json"}
    assert is_published(published.folder)


def test_every_file_has_the_mode_that_the_umask_asks_for(published: Published) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in published.folder.iterdir()} == {0o640}


def test_the_index_names_every_tensor_and_their_number(published: Published) -> None:
    index = published.json("model.safetensors.index.json")
    found: dict[str, str] = {}
    for path in published.folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            found |= dict.fromkeys(shard.keys(), path.name)
    assert index["weight_map"] == found
    num_values = sum(tensor.numel() for tensor in read_result(published.folder).values())
    assert index["metadata"] == {"total_parameters": num_values, "total_size": 4 * num_values}


def test_the_config_is_the_bases_but_for_its_dtype(published: Published) -> None:
    config, base = published.json("config.json"), json.loads((published.merge.folders.base / "config.json").read_text())
    if published.family == "clip-full":
        base = base["vision_config"]
        assert (config["model_type"], config["architectures"]) == ("clip_vision_model", ["CLIPVisionModel"])
    assert config["dtype"] == "float32"
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        assert config[key] == base[key]


@pytest.mark.parametrize("published", ["llama", *map(slow, checkpoints.CAUSAL_FAMILIES[1:])], indirect=True)
def test_the_tokenizer_and_the_defaults_of_generation_are_the_bases(published: Published) -> None:
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (published.folder, published.merge.folders.base)]
    messages = [{"role": "user", "content": checkpoints.SENTENCES[6]}]
    assert len({tuple(tokenizer(checkpoints.SENTENCES[6])["input_ids"]) for tokenizer in tokenizers}) == 1
    assert len({tokenizer.apply_chat_template(messages, tokenize=False) for tokenizer in tokenizers}) == 1
    assert GenerationConfig.from_pretrained(published.folder).temperature == 0.7


def test_the_card_is_one_that_the_hub_reads(published: Published) -> None:
    card = ModelCard.load(published.folder / "README.md")
    data = card.data.to_dict()
    assert "base_model" not in data  # folders of this machine are no models of the hub
    assert data["library_name"] == "transformers"
    assert data["license"] == "llama3.1"
    assert data["tags"] == ["merge", "regstream", "regmean++"]
    kinds = {"text-generation": checkpoints.CAUSAL_FAMILIES, "feature-extraction": ("bert", "roberta")}
    kind = next((kind for kind, families in kinds.items() if published.family in families), "image-feature-extraction")
    assert data["pipeline_tag"] == kind
    assert published.merge.manifest.read_text().strip() in card.text
    assert "- **task1**: candidate-1, weight 1" in card.text


def test_the_record_says_what_it_was_made_from_and_how_each_solve_went(published: Published) -> None:
    record = read_provenance(published.folder)
    assert (record["method"], record["base"]) == ("regmean++", "base")
    assert record["candidates"] == {"task0": "candidate-0", "task1": "candidate-1"}
    assert record["manifest"] == published.merge.manifest.read_text()
    few_rows = [warning for warning in record["warnings"] if "fewer than rows" in warning]
    assert [warning.split(": ")[0] for warning in few_rows] == ['candidate "task0"', 'candidate "task1"']
    assert [step["name"] for step in record["steps"]] == ["stem", "block 0", "block 1", "head"]
    for step in record["steps"][1:3]:
        assert [len(solve["linears"]) for solve in step["solves"]][::3] == [3, 1]
        assert all(solve["residual"] < 1e-3 and solve["condition"] >= 1 for solve in step["solves"])
    assert bool(record["ignored"]) == (published.family == "clip-full")


def test_the_measurements_stand_apart(published: Published) -> None:
    steps = published.json("regstream.measured.json")["steps"]
    assert [step["name"] for step in steps] == ["stem", "block 0", "block 1", "head"]
    assert all(step["peak_bytes"] > 0 and step["seconds"] >= 0 for step in steps)
    assert "peak_bytes" not in (published.folder / PROVENANCE).read_text()


def evaluation(loss: float) -> EvaluationRecord:
    rows = [EvaluationRow(model="mean", scores={"task0": loss})]
    return EvaluationRecord(metric="held-out loss", higher_is_better=False, datasets=["task0"], rows=rows)


def without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


@pytest.fixture
def result(published: Published, tmp_path: Path) -> Path:
    """A copy of the result, which a test may alter."""
    return shutil.copytree(published.folder, tmp_path / "result")


def test_results_are_put_into_the_card_and_the_record(result: Path) -> None:
    before = read_provenance(result)
    add_results(result, evaluation=evaluation(1.5))
    after = read_provenance(result)
    assert after["evaluation"] == evaluation(1.5).model_dump()
    assert {name for name in after["files"] if after["files"][name] != before["files"][name]} == {"README.md"}
    assert without(after, "files", "sha256", "evaluation") == without(before, "files", "sha256")
    card = (result / "README.md").read_text()
    assert "## Results\n\n| held-out loss | task0 | average |" in card
    assert ModelCard.load(result / "README.md").data.to_dict()["library_name"] == "transformers"
    assert verify_files(result).problems == ()


@pytest.mark.parametrize("published", ["llama"], indirect=True)
def test_new_results_replace_earlier_ones_and_leave_the_others(result: Path) -> None:
    bias = [BiasRecord(model="mean", dataset="task0", depth=0, l1=0.1, cosine=0.0)]
    add_results(result, evaluation=evaluation(1.5))
    card = (result / "README.md").read_bytes()
    add_results(result, bias=bias)
    assert (result / "README.md").read_bytes() == card
    add_results(result, evaluation=evaluation(1.25))
    fields = read_record(result)
    assert (fields.evaluation, fields.bias) == (evaluation(1.25), bias)
    text = (result / "README.md").read_text()
    assert "1.250" in text
    assert "1.500" not in text
    assert text.count("## Results") == 1


@pytest.mark.parametrize("published", ["llama"], indirect=True)
@pytest.mark.parametrize("edit", ["edited", "edited within the results", "not text", "removed"])
def test_the_results_are_on_record_though_the_card_is_a_persons_own(result: Path, edit: str) -> None:
    add_results(result, evaluation=evaluation(1.5))
    card = result / "README.md"
    if edit == "removed":
        card.unlink()
    elif edit == "not text":
        card.write_bytes(b"\xff")
    else:
        card.write_text(card.read_text().replace("1.500" if "results" in edit else "# merged", "mine"))
    before = card.read_bytes() if edit != "removed" else None
    events: list[Event] = []
    add_results(result, evaluation=evaluation(1.25), listener=events.append)
    assert [event.message.split("README.md: ")[1] for event in events if isinstance(event, Warned)] == [
        "edited or removed since it was written; the results are not added, but regstream.json has them"
    ]
    assert read_record(result).evaluation == evaluation(1.25)
    assert (card.read_bytes() if card.exists() else None) == before


@pytest.mark.parametrize("published", ["llama"], indirect=True)
def test_what_is_interrupted_between_card_and_record_goes_on(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_results(result, evaluation=evaluation(1.5))
    write_file = durable.write_file

    def stopped(path: Path, *arguments: Any) -> str:
        if path.name == PROVENANCE:
            raise KeyboardInterrupt
        return write_file(path, *arguments)

    monkeypatch.setattr(durable, "write_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        add_results(result, evaluation=evaluation(1.25))
    monkeypatch.undo()
    assert verify_files(result).problems != ()
    events: list[Event] = []
    add_results(result, evaluation=evaluation(1.25), listener=events.append)
    assert events == []
    assert verify_files(result).problems == ()
    assert read_record(result).evaluation == evaluation(1.25)


@pytest.mark.parametrize("published", ["llama"], indirect=True)
def test_the_files_of_a_report_belong_to_the_result(published: Published, result: Path) -> None:
    write_report_files(result, {"report/by-depth.png": b"picture", "report/earlier.png": b"picture"})
    write_report_files(result, {"report/by-depth.png": b"picture"})
    assert "![By depth](report/by-depth.png)" in (result / "README.md").read_text()
    assert "earlier" not in (result / "README.md").read_text()
    assert not (result / "report" / "earlier.png").exists()
    assert verify_files(result).problems == ()
    (result / "report" / "by-depth.png").write_bytes(b"painting")
    assert len(verify_files(result).problems) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "changed": lambda text: text.replace(b'"regmean++"', b'"regmean+-"'),
    "truncated": lambda text: text[:-2],
    "reformatted": lambda text: json.dumps(json.loads(text)).encode(),
    "added to": lambda text: text + b"\n",
    "no JSON": lambda text: b"{",
    "no table": lambda text: b"[]",
    "without its digest": lambda text: b"{}",
    "no text": lambda text: b"\xff",
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("published", ["llama"], indirect=True)
def test_damage_to_the_record_is_seen(published: Published, tmp_path: Path, kind: str) -> None:
    text = (published.folder / PROVENANCE).read_bytes()
    (tmp_path / PROVENANCE).write_bytes(text)
    assert read_provenance(tmp_path)["method"] == "regmean++"
    damaged = DAMAGE[kind](text)
    assert damaged != text
    (tmp_path / PROVENANCE).write_bytes(damaged)
    with pytest.raises(InputError, match="damaged"):
        read_provenance(tmp_path)


def test_a_folder_without_a_record_is_no_result(tmp_path: Path) -> None:
    assert not is_published(tmp_path)
    with pytest.raises(InputError, match="is this the output of a finished run"):
        read_provenance(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_config_says_the_dtype_of_the_result(tmp_path: Path, dtype: str) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, merge={"method": "average", "dtype": dtype})
    described = merge.folders.base / "config.json"
    # As older versions wrote it: another key for the dtype, and where the model was on that machine.
    old = {"torch_dtype": "float32", "_name_or_path": str(tmp_path)}
    described.write_text(json.dumps(json.loads(described.read_text()) | old))
    config = json.loads((merge.run() / "config.json").read_text())
    assert config["dtype"] == dtype
    assert not config.keys() & old.keys()
    model = checkpoints.load(merge.output, "auto")  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


CARDS = {
    "without a license": (b"---\ntags: [a]\n---\n", None),
    "without metadata": (b"# Nothing but text\n", None),
    "empty": (b"", None),
    "of two licenses": (b"---\nlicense: [mit, apache-2.0]\n---\n", None),
    "with bad metadata": (b"---\nlicense: [\n---\n", None),
    "with metadata that is a list": (b"---\n- license\n---\n", None),
    "with a strange byte": (b"---\nlicense: mit\n---\ncaf\xe9\n", "mit"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CARDS)
def test_a_run_does_not_fail_at_its_end_over_the_bases_card(tmp_path: Path, kind: str) -> None:
    content, expected = CARDS[kind]
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, merge={"method": "average"})
    (merge.folders.base / "README.md").write_bytes(content)
    assert ModelCard.load(merge.run() / "README.md").data.to_dict().get("license") == expected
