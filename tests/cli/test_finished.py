"""A finished merge is confirmed at once if nothing changed; a change takes the whole way, which says what it is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from architectures import TABLES
from merging import Merge, make_merge
from regstream import api
from regstream.events import Event, RunFinished
from regstream.output.record import read_provenance, write_provenance
from regstream.planning.unchanged_inputs import input_digests
from regstream.storage.run_folder import MARKER

FINISHED = "already finished"
Invoke = Callable[..., Result]
Edit = Callable[[Path], object]


def is_finished(manifest: Path) -> bool:
    return api.is_finished(api.load_manifest(manifest))


def flip(path: Path, position: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def in_manifest(old: str, new: str) -> Edit:
    return lambda folder: replaced(folder / "manifest.toml", old, new)


def index_added(folder: Path) -> None:
    weight_map = {"nothing": "model.safetensors"}
    (folder / "candidate-1" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def linked_to_the_result(folder: Path) -> None:
    os.link(folder / "merged" / "config.json", folder / "held.jsonl")
    manifest = folder / "manifest.toml"
    table, path, rest = manifest.read_text().partition('[candidates.evaluation]\npath = "task0.jsonl"')
    manifest.write_text(table + path.replace("task0", "held") + rest)


def record_of_an_earlier_version(folder: Path) -> None:
    record = read_provenance(folder / "merged")
    files = record.pop("files")
    del record["inputs"]
    write_provenance(folder / "merged", record, files)


def read_as_text(folder: Path) -> None:
    (folder / "task1.jsonl").rename(folder / "task1.txt")
    replaced(folder / "manifest.toml", "task1.jsonl", "task1.txt")


#: What is edited in the folder of a finished merge, how `run` ends then, and a part of its last line.
EDITS: dict[str, tuple[Edit, int, str]] = {
    "a weight of the base": (lambda f: flip(f / "base" / "model.safetensors"), 5, "base shard 1 of 1"),
    "a weight of a candidate": (lambda f: flip(f / "candidate-0" / "model.safetensors"), 5, "candidates task0 shard"),
    "a candidate's config": (
        lambda f: replaced(f / "candidate-1" / "config.json", '"rms_norm_eps": ', '"rms_norm_eps": 1'),
        4,
        "rms_norm_eps",
    ),
    "an index added to a candidate": (index_added, 4, "names tensor nothing"),
    "a missing shard": (lambda f: (f / "base" / "model.safetensors").unlink(), 4, "model.safetensors"),
    "an adapter added to a candidate": (
        lambda f: (f / "candidate-1" / "adapter_config.json").write_text("{}"), 0, FINISHED
    ),
    "the base's tokenizer, which rows of token ids do not need": (
        lambda f: replaced(f / "base" / "tokenizer_config.json", "{", "{ "), 0, FINISHED
    ),
    "a calibration set": (lambda f: replaced(f / "task1.jsonl", "[", "[1, "), 5, "calibration task1"),
    "the format of a calibration set": (read_as_text, 4, "expected a list of token ids"),
    "a row written differently": (lambda f: replaced(f / "task1.jsonl", "[", "[ "), 0, FINISHED),
    "a key of the manifest": (in_manifest("[merge]", "[merge]\nalpha = 0.5"), 5, "alpha"),
    "a candidate's name": (in_manifest('"task1"', '"other"'), 5, "other"),
    "a path of the manifest": (in_manifest('= "base"\noutput', '= "base/"\noutput'), 0, FINISHED),
    "a device of another machine": (in_manifest('"cpu"', '"cuda:77"'), 0, FINISHED),
    "a shard of the result": (lambda f: flip(f / "merged" / "model-00002-of-00007.safetensors"), 5, "model-00002"),
    "the result's config": (lambda f: flip(f / "merged" / "config.json"), 5, "config.json: damaged"),
    "a file of the result that is missing": (lambda f: (f / "merged" / "tokenizer.json").unlink(), 5, "missing"),
    "the model card": (lambda f: (f / "merged" / "README.md").write_text("mine"), 0, FINISHED),
    "the record": (lambda f: flip(f / "merged" / "regstream.json"), 4, "regstream.json: damaged"),
    "a foreign model file in the result": (
        lambda f: (f / "merged" / "adapter_config.json").write_text("{}"), 4, "contains adapter_config.json"
    ),
    "an input that is a file of the result": (linked_to_the_result, 4, "is also the input"),
    "state of a run that is left": (
        lambda f: shutil.copytree(f / "base", f / "merged" / ".regstream"), 4, f"no {MARKER}"
    ),
    "a record of an earlier version": (record_of_an_earlier_version, 0, FINISHED),
}  # fmt: skip
#: Edits after which the result is provably that of the manifest.
UNSEEN = {"a path of the manifest", "a device of another machine", "the model card"}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_takes_the_whole_way_unless_it_changes_nothing(invoke: Invoke, finished: Path, edit: str) -> None:
    change, exit_code, message = EDITS[edit]
    change(finished.parent)
    assert is_finished(finished) == (edit in UNSEEN)
    result = invoke("run", finished)
    assert result.exit_code == exit_code, result.stderr
    assert message in result.stderr


def test_what_has_not_begun_or_not_ended_is_not_finished(fresh: Path, half_done: Path) -> None:
    assert not is_finished(fresh)
    assert not is_finished(half_done)


def test_a_confirmation_is_an_event_and_changes_nothing(invoke: Invoke, finished: Path) -> None:
    events: list[Event] = []
    before = {path: path.stat().st_mtime_ns for path in finished.parent.rglob("*")}
    assert api.is_finished(api.load_manifest(finished), listener=events.append)
    assert {path: path.stat().st_mtime_ns for path in finished.parent.rglob("*")} == before
    [event] = events
    assert isinstance(event, RunFinished)
    assert event.was_finished_before
    assert json.loads(invoke("run", finished, "--json").stdout)["event"] == "run_finished"


@pytest.mark.parametrize(("device", "exit_code"), [("cpu", 0), ("cuda:77", 0), ("toaster", 2)])
def test_a_result_is_finished_whatever_the_device(invoke: Invoke, finished: Path, device: str, exit_code: int) -> None:
    assert invoke("run", finished, "--device", device).exit_code == exit_code


def test_other_versions_and_processors_do_not_change_a_result(invoke: Invoke, finished: Path) -> None:
    output = finished.parent / "merged"
    record = read_provenance(output)
    record["identity"]["versions"]["torch"] = "1.0"
    record["identity"]["device"] = {"name": "cuda of old"}
    for inputs in (record["inputs"], None):
        write_provenance(output, record | {"inputs": inputs}, record["files"])
        assert is_finished(finished) == (inputs is not None)
        assert FINISHED in invoke("run", finished).stderr


def test_every_byte_of_what_rows_are_made_from_counts(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, num_rows=4)
    large = "\n" * (8 << 20)  # more than samples cover; no rows
    (tmp_path / "base" / "tokenizer.json").open("a").write(large)
    (tmp_path / "task0.jsonl").open("a").write(large)
    merge.run()
    assert is_finished(merge.manifest)
    for file in (tmp_path / "base" / "tokenizer.json", tmp_path / "task0.jsonl"):
        for position in (-5_000_003, -1_234_567):
            before = file.read_bytes()
            flip(file, position)
            assert not is_finished(merge.manifest)
            file.write_bytes(before)
            assert is_finished(merge.manifest)


def test_images_that_rows_name_prove_nothing(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, num_rows=4)
    rows, manifest = tmp_path / "task0.jsonl", tmp_path / "manifest.toml"
    replaced(manifest, 'path = "task0.jsonl"\nfield = "input_ids"', 'path = "task0.jsonl"\nfield = "messages"')
    message = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    rows.write_text(json.dumps({"messages": [message]}))
    assert input_digests(merge.read()) is not None
    message["content"] = [{"type": "image", "path": "a.png"}]
    rows.write_text(json.dumps({"messages": [message]}))
    assert input_digests(merge.read()) is None
    replaced(manifest, 'field = "messages"', 'images = "picture"')
    rows.write_text(json.dumps({"text": "hi", "picture": "a.png"}))
    assert input_digests(merge.read()) is None


def test_an_input_that_was_touched_while_the_merge_was_made_proves_nothing(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=8, candidates=2, num_rows=4)
    plan = merge.plan()
    os.utime(tmp_path / "task0.jsonl")
    api.merge(plan)
    assert not is_finished(merge.manifest)
    assert api.merge(merge.plan()) == merge.output


def test_adapters_and_weights_alone(tmp_path: Path) -> None:
    from adapters import make_adapters

    keys = {"method": "average"}
    merge: Merge = make_adapters(make_merge(tmp_path, layers=1, hidden=8, candidates=2, merge=keys), "llama")
    merge.run()
    assert is_finished(merge.manifest)
    (tmp_path / "task0.jsonl").unlink()  # an average reads no rows, but the manifest must name files that exist
    (tmp_path / "task0.jsonl").write_text("")
    assert is_finished(merge.manifest)
    flip(next(tmp_path.rglob("adapter_model.safetensors")))
    assert not is_finished(merge.manifest)


def test_a_key_of_an_architecture_that_only_a_plan_checks(invoke: Invoke, tmp_path: Path) -> None:
    merge = make_merge(
        tmp_path, "siglip", layers=1, candidates=2, merge={"method": "average"}, architecture=TABLES["siglip"]
    )
    merge.run()
    assert is_finished(merge.manifest)
    replaced(merge.manifest, '= "post_layernorm"', '= "post_layer_norm"')
    assert not is_finished(merge.manifest)
    assert invoke("run", merge.manifest).exit_code == 2
