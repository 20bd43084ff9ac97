"""An output is a run's own, or it is refused: what libraries would load with a result, or in its place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from disk import no_waiting_for_the_disk
from parametrize import slow
from regstream.errors import InputError
from regstream.events import Event, StepStarted
from regstream.manifest.read_manifest import read_manifest
from regstream.output.record import PROVENANCE, self_digest
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

__all__ = ["no_waiting_for_the_disk"]

Invoke = Callable[..., Result]

LOADED = (
    "model.safetensors", "model-00001-of-00009.safetensors", "model.fp16.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "tf_model.h5",
    "flax_model.msgpack", "consolidated.00.pth", "model.pt", "model.ckpt", "model-Q4_K_M.gguf", "MODEL.SAFETENSORS",
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates/rag.jinja", "preprocessor_config.json", "processor_config.json", "params.json",
    "consolidated.safetensors", "README.md", "regstream.measured.json", "modules.json",
)  # fmt: skip
HARMLESS = ("notes.txt", "loss.png", "run.log", "evaluation.json", "figures/model.safetensors")


def output_of(manifest: Path) -> Path:
    return manifest.parent / "merged"


def stray(manifest: Path, name: str) -> Path:
    path = output_of(manifest) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of someone")
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "additional_chat_templates/rag.jinja"])
@pytest.mark.parametrize("command", [("run",), ("run", "--restart"), ("plan",), ("run", "--dry-run")], ids=" ".join)
def test_what_loaders_read_and_no_run_made_is_refused(
    invoke: Invoke, fresh: Path, name: str, command: tuple[str, ...]
) -> None:
    path = stray(fresh, name)
    result = invoke(*command, fresh)
    assert result.exit_code == 4
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"regstream: error: {output_of(fresh)}: contains {name}, which regstream did not write")
    assert "which would be overwritten or loaded with the result" in line
    assert "choose another output or move all such files away" in line
    assert [path.read_text() for path in output_of(fresh).rglob("*") if path.is_file()] == ["of someone"]
    assert path.exists()


@pytest.mark.slow
def test_what_loaders_read_and_came_during_the_run_is_refused_before_the_result_is_published(
    invoke: Invoke, fresh: Path
) -> None:
    def plant(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "head":
            stray(fresh, "model.safetensors")

    with pytest.raises(InputError, match=r"contains model\.safetensors, which regstream did not write"):
        run(make_plan(read_manifest(fresh)), listener=plant)
    assert not (output_of(fresh) / "config.json").exists()
    assert (output_of(fresh) / "model.safetensors").read_text() == "of someone"
    (output_of(fresh) / "model.safetensors").unlink()
    assert "resuming after 7 of 7 steps" in invoke("run", fresh).stderr
    assert invoke("verify", output_of(fresh)).exit_code == 0


@pytest.mark.parametrize("target", ["nowhere", "inside"])
def test_so_are_links_wherever_they_lead(invoke: Invoke, fresh: Path, target: str) -> None:
    stray(fresh, "inside")
    (output_of(fresh) / "model.safetensors").symlink_to(target)
    assert "contains model.safetensors," in invoke("plan", fresh).stderr
    assert invoke("run", fresh).exit_code == 4


def test_all_that_loaders_read_is_counted(invoke: Invoke, fresh: Path) -> None:
    for name in (*LOADED, *HARMLESS):
        stray(fresh, name)
    assert f"contains {min(LOADED)} and {len(LOADED) - 1} more, which" in invoke("run", fresh).stderr


@pytest.mark.slow
def test_beside_what_no_loader_reads_a_merge_runs(invoke: Invoke, fresh: Path) -> None:
    paths = [stray(fresh, name) for name in HARMLESS]
    assert invoke("plan", fresh).exit_code == 0
    assert invoke("run", fresh).exit_code == 0
    assert invoke("verify", output_of(fresh)).exit_code == 0
    assert {path.read_text() for path in paths} == {"of someone"}


@pytest.mark.parametrize(("state", "name"), [("half_done", "model.safetensors"), ("finished", "adapter_config.json")])
def test_what_comes_into_a_run_or_a_result_is_refused_too(
    invoke: Invoke, request: pytest.FixtureRequest, state: str, name: str
) -> None:
    manifest: Path = request.getfixturevalue(state)
    path = stray(manifest, name)
    for options in ((), ("--restart",)):
        result = invoke("run", manifest, *options)
        assert result.exit_code == 4
        assert f"contains {name}, which regstream did not write" in result.stderr
    assert path.read_text() == "of someone"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "adapter_config.json", "MODEL.GGUF", "vocab.json", "tekken.json",
             "additional_chat_templates/rag.jinja", "consolidated.00.pth"]
)  # fmt: skip
def test_verify_names_what_is_loaded_and_not_of_the_result(invoke: Invoke, finished: Path, name: str) -> None:
    output = output_of(finished)
    stray(finished, name)
    result = invoke("verify", output)
    assert result.exit_code == 4
    assert f"{output / name}: not part of the result" in result.stderr


def test_verify_names_links_and_what_is_missing(invoke: Invoke, finished: Path) -> None:
    output = output_of(finished)
    (output / "model.safetensors").symlink_to("nowhere")
    (output / "config.json").unlink()
    (output / "tokenizer.json").unlink()
    said = invoke("verify", output).stderr
    assert f"{output / 'model.safetensors'}: not part of the result" in said
    assert f"{output / 'config.json'}: missing" in said
    assert f"{output / 'tokenizer.json'}: missing" in said


@pytest.mark.slow
def test_restart_removes_what_the_record_lists_and_nothing_else(invoke: Invoke, fresh: Path) -> None:
    base, output = fresh.parent / "base", output_of(fresh)
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    (base / "tokenizer.model").write_text("an older tokenizer")
    assert invoke("run", fresh).exit_code == 0
    assert (output / "additional_chat_templates" / "rag.jinja").exists()
    note = stray(fresh, "notes.txt")
    shutil.rmtree(base / "additional_chat_templates")
    (base / "tokenizer.model").unlink()
    fresh.write_text(fresh.read_text().replace("[merge]", '[merge]\nalpha = 0.5\nshard_size = "1GiB"'))
    assert invoke("run", fresh).exit_code == 5
    assert invoke("run", fresh, "--restart").exit_code == 0
    assert not (output / "additional_chat_templates").exists()
    assert not (output / "tokenizer.model").exists()
    assert [path.name for path in output.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert note.read_text() == "of someone"
    assert invoke("verify", output).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [slow("README.md"), slow("config.json"), "model-00002-of-00007.safetensors"])
def test_restart_keeps_a_recorded_file_that_someone_changed(invoke: Invoke, finished: Path, name: str) -> None:
    path = output_of(finished) / name
    path.write_bytes(changed := path.read_bytes()[:-1] + b"~")
    result = invoke("run", finished, "--restart")
    assert result.exit_code == 4
    assert f"{path}: damaged" in result.stderr
    assert "move this file away" in result.stderr
    assert path.read_bytes() == changed
    path.rename(finished.parent / "moved away")
    assert invoke("run", finished, "--restart").exit_code == 0


@pytest.mark.parametrize(
    "name",
    ["../task0.jsonl", *map(slow, ("/etc/hostname", "a/b/c", "..", "", ".regstream/lock", "./x", "a//b"))],
)
@pytest.mark.parametrize("kind", ["record", "marker"])
def test_a_record_that_lists_what_is_not_in_the_folder_removes_nothing(
    invoke: Invoke, request: pytest.FixtureRequest, name: str, kind: str
) -> None:
    manifest: Path = request.getfixturevalue("finished" if kind == "record" else "half_done")
    output = output_of(manifest)
    before = {path: path.read_bytes() for path in manifest.parent.rglob("*") if path.is_file()}
    if kind == "record":
        path = output / PROVENANCE
        record = json.loads(path.read_text())
        record["files"][name] = {"bytes": 1, "sha256": "0"}
        record["sha256"] = self_digest(record)
        path.write_text(json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    else:
        path = output / ".regstream" / "regstream-folder.json"
        record = json.loads(path.read_text())
        record["files"].append(name)
        path.write_text(json.dumps(record))
    del before[path]
    for command in (("run",), ("run", "--restart"), ("plan",)):
        result = invoke(*command, manifest)
        assert result.exit_code == 4, result.stderr
        assert "is not a file in its folder" in result.stderr or "is the state of a run" in result.stderr
    if kind == "record":
        assert invoke("verify", output).exit_code == 4
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 2, "output": 3, "files": []}']
)
def test_a_damaged_marker_is_a_line(invoke: Invoke, half_done: Path, content: bytes) -> None:
    (output_of(half_done) / ".regstream" / "regstream-folder.json").write_bytes(content)
    result = invoke("run", half_done, "--restart")
    assert result.exit_code == 4
    assert "regstream-folder.json: damaged" in result.stderr


@pytest.mark.parametrize("where", ["output", "workdir"])
def test_a_folder_of_the_name_that_no_run_made_is_refused(invoke: Invoke, fresh: Path, where: str) -> None:
    from regstream.manifest.read_manifest import read_manifest

    if where == "workdir":
        fresh.write_text(fresh.read_text() + 'workdir = "fast"\n')
    folder = read_manifest(fresh).workdir
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("of someone")
    for command in (("run",), ("run", "--restart"), ("plan",), ("evaluate", "--only", "base")):
        result = invoke(*command, fresh)
        assert result.exit_code == 4, result.stderr
        assert f"{folder}: no regstream-folder.json: regstream did not create" in result.stderr
    assert (folder / "notes.txt").read_text() == "of someone"


def test_the_state_of_another_outputs_run_is_refused(invoke: Invoke, fresh: Path) -> None:
    from regstream.manifest.read_manifest import read_manifest

    fresh.write_text(fresh.read_text() + 'workdir = "fast"\n')
    folder = read_manifest(fresh).workdir
    folder.mkdir(parents=True)
    marker = {"format": 2, "output": "/elsewhere/merged", "files": []}
    (folder / "regstream-folder.json").write_text(json.dumps(marker))
    result = invoke("run", fresh)
    assert result.exit_code == 4
    assert "holds the state of the run that writes /elsewhere/merged" in result.stderr


def test_an_earlier_versions_run_is_a_line(invoke: Invoke, fresh: Path) -> None:
    state = output_of(fresh) / ".regstream"
    state.mkdir(parents=True)
    (state / "journal.jsonl").write_text("0123456789abcdef {}\n")
    result = invoke("run", fresh)
    assert result.exit_code == 5
    assert "written by another version of regstream" in result.stderr
