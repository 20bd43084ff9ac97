"""Whatever a command does, a person's files in workdir and output stay as they are, and so does every input."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from crash.faults import in_child, kill, with_fault
from disk import no_waiting_for_the_disk
from merging import Merge, make_merge
from parametrize import grid, slow
from regstream.errors import Interrupted
from regstream.events import Event, StepStarted

__all__ = ["no_waiting_for_the_disk"]

Invoke = Callable[..., Result]
Snapshot = dict[Path, tuple[bytes, int]]

WORKDIRS = {"in the output": None, "shared": "fast", "around the output": ".", "within the output": "merged/work"}
#: Names that state has, and that a person's files may have as well.
NAMES = (
    "notes.txt", "lock", "downloads", "journal.jsonl", "regstream.json", "evaluation/rows.txt", "bias-0/rows.txt",
    "hidden/0/task0/0/c/0/0", "zarr.json", "other/model.safetensors", "regstream-merged/notes.txt",
    "evaluate-abcdefgh/x", "rank-1/x", "rank-2/evaluate-abcdefgh/x",
)  # fmt: skip
IN_OUTPUT = ("notes.txt", "loss.png", "figures/model.safetensors", "logs/journal.jsonl", "hidden/0/x", "LICENSES/mine")
IN_RUN_FOLDER = (
    "notes.txt", "hidden/mine.txt", "hidden/0/task0/mine.txt", "hidden/9/zarr.txt", "evaluation/mine.txt",
    "rank-1/mine.txt", "rank-2/hidden/mine.txt",
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    held_out = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\nrows = 2\n'
    # Said out loud: what candidates tuned is left out otherwise with a warning.
    others = 'others.embeddings = "base"\nothers.head = "base"\n'
    make_merge(folder, layers=2, hidden=8, candidates=2, num_rows=4, candidate=held_out.format, rules=others)
    return folder


def put(folder: Path, names: tuple[str, ...]) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"of a person: {path.name}".encode())
    return paths


def read(paths: list[Path]) -> Snapshot:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def merge(request: pytest.FixtureRequest, inputs: Path, tmp_path: Path) -> Merge:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    path, workdir = tmp_path / "manifest.toml", WORKDIRS[request.param]
    if workdir is not None:
        path.write_text(path.read_text() + f'workdir = "{workdir}"\n')
    return Merge(path, None, [])  # type: ignore[arg-type]


def stop(event: Event) -> None:
    if isinstance(event, StepStarted) and event.name == "block 1":
        raise Interrupted("here")


def begin(merge: Merge) -> None:
    with pytest.raises(Interrupted):
        merge.run(listener=stop)


def run(invoke: Invoke, merge: Merge) -> None:
    assert invoke("run", merge.manifest).exit_code == 0


def resume(invoke: Invoke, merge: Merge) -> None:
    begin(merge)
    run(invoke, merge)


def restart(invoke: Invoke, merge: Merge) -> None:
    begin(merge)
    assert invoke("run", merge.manifest, "--restart").exit_code == 0
    assert invoke("run", merge.manifest, "--restart").exit_code == 0


def be_killed(invoke: Invoke, merge: Merge) -> None:
    for index in range(20, 400, 60):
        if in_child(lambda index=index: with_fault(merge.run, merge.manifest.parent, index, kill)) == 0:  # type: ignore[misc]
            break
    run(invoke, merge)


def run_again(invoke: Invoke, merge: Merge) -> None:
    run(invoke, merge)
    assert "already finished" in invoke("run", merge.manifest).stderr


def evaluate(invoke: Invoke, merge: Merge) -> None:
    run(invoke, merge)
    assert invoke("evaluate", merge.manifest).exit_code == 0


def measure_bias(invoke: Invoke, merge: Merge) -> None:
    run(invoke, merge)
    assert invoke("bias", merge.manifest).exit_code == 0


def evaluate_before_and_plan(invoke: Invoke, merge: Merge) -> None:
    assert invoke("evaluate", merge.manifest, "--only", "base").exit_code == 0
    assert invoke("plan", merge.manifest).exit_code == 0
    assert invoke("status", merge.manifest).exit_code == 0


ACTIONS = [run, resume, restart, be_killed, run_again, evaluate, measure_bias, evaluate_before_and_plan]


@pytest.mark.parametrize(
    ("merge", "action"),
    [
        *grid({("in the output", be_killed)}, ["in the output"], ACTIONS),
        *grid(set(), list(WORKDIRS)[1:], [restart, evaluate]),
    ],
    indirect=["merge"],
)
def test_a_persons_files_and_all_inputs_survive(
    invoke: Invoke, merge: Merge, action: Callable[[Invoke, Merge], None]
) -> None:
    inputs = files_of(merge.manifest.parent)
    workdir = merge.read().resources.workdir
    own = put(merge.output, IN_OUTPUT)
    if workdir is not None:
        own += put(workdir, NAMES)
    before = read([*inputs, *own])
    action(invoke, merge)
    assert read(list(before)) == before


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["in the output"], indirect=True)
@pytest.mark.parametrize("action", [restart, *map(slow, [resume, be_killed, run_again, evaluate, measure_bias])])
def test_so_do_those_that_got_into_the_folder_of_a_run(
    invoke: Invoke, merge: Merge, action: Callable[[Invoke, Merge], None]
) -> None:
    begin(merge)
    own = put(merge.read().workdir, IN_RUN_FOLDER)
    before = read(own)
    action(invoke, merge)
    assert read(own) == before
    result = invoke("run", merge.manifest)
    assert result.exit_code == 0
    assert "kept: regstream did not create it" in result.stderr
    assert read(own) == before


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["shared", slow("in the output"), slow("within the output")], indirect=True)
def test_a_finished_run_leaves_nothing_but_its_result(invoke: Invoke, merge: Merge) -> None:
    inputs, workdir = files_of(merge.manifest.parent), merge.read().resources.workdir
    resume(invoke, merge)
    evaluate(invoke, merge)
    left = set(files_of(merge.manifest.parent)) - set(inputs)
    assert {path.parent for path in left} == {merge.output}
    assert not (merge.output / ".regstream").exists()
    assert workdir is None or not list(workdir.glob("regstream-*"))


def shared_workdir(inputs: Path, folder: Path, name: str) -> Merge:
    path = folder / f"{name}.toml"
    text = (inputs / "manifest.toml").read_text().replace('output = "merged"', f'output = "{name}/merged"')
    path.write_text(text + 'workdir = "fast"\n')
    return Merge(path, None, [])  # type: ignore[arg-type]


@pytest.mark.slow
def test_several_merges_share_a_workdir(invoke: Invoke, inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    one, other = (shared_workdir(inputs, tmp_path, name) for name in ("one", "other"))
    begin(one)
    begin(other)
    folders = sorted((tmp_path / "fast").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("regstream-merged-") for folder in folders)
    assert invoke("run", one.manifest).exit_code == 0
    assert [folder.exists() for folder in folders].count(True) == 1
    resumed = invoke("run", other.manifest)
    assert "resuming after 2 of 4 steps" in resumed.stderr
    outputs = [(tmp_path / name / "merged" / "model-00003-of-00004.safetensors") for name in ("one", "other")]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


SHARD = "model-00002-of-00004.safetensors"
LINKED = (
    SHARD, f"{SHARD}.partial", f".regstream/{SHARD}.partial", ".regstream/staged.partial", ".regstream/lock",
    ".regstream/journal.jsonl", ".regstream/journal.jsonl.partial", ".regstream/regstream-folder.json",
    ".regstream/regstream-folder.json.partial", ".regstream/downloads", "config.json", "config.json.partial",
    "README.md", "regstream.json", "regstream.measured.json", "model.safetensors.index.json", "model.safetensors",
)  # fmt: skip


def link(path: Path, target: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target) if kind == "symbolic" else os.link(target, path)


#: A shard, a shard that is being written, the journal, and what is published.
EVERYDAY = {
    (SHARD, "symbolic", True),
    (f".regstream/{SHARD}.partial", "hard", False),
    ("config.json", "hard", False),
}


@pytest.mark.parametrize(
    ("name", "kind", "begun"),
    [*grid(EVERYDAY, LINKED, ["symbolic"], [True]), *grid(EVERYDAY, LINKED, ["hard"], [False])],
)
def test_inputs_survive_links_to_them_in_the_output(
    invoke: Invoke, inputs: Path, tmp_path: Path, name: str, kind: str, *, begun: bool
) -> None:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    merge = Merge(tmp_path / "manifest.toml", None, [])  # type: ignore[arg-type]
    target = tmp_path / "candidate-0" / "model.safetensors"
    before = {path: path.read_bytes() for path in files_of(tmp_path)}
    if begun:
        begin(merge)
    link(merge.output / name, target, kind)
    for options in ((), ("--restart",), ()):
        result = invoke("run", merge.manifest, *options)
        assert result.exit_code in (0, 4, 5), result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) == 1 or result.exit_code == 0
        assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("hidden/0", "run"),
        *map(slow, ["hidden", "hidden/0/task0", "hidden"], ["run", "run", "evaluate"]),
        *map(slow, ["evaluate-abcdefgh"] * 2, ["run", "evaluate"]),
    ],
)
def test_so_do_folders_that_state_is_linked_to(
    invoke: Invoke, inputs: Path, tmp_path: Path, name: str, command: str
) -> None:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    merge = Merge(tmp_path / "manifest.toml", None, [])  # type: ignore[arg-type]
    own = put(tmp_path / "mine", ("zarr.json", "0/zarr.json", "0/task0/zarr.json", "0/task0/0/c/0/0", "lock"))
    before = read([*files_of(tmp_path), *own])
    begin(merge)
    place = merge.output / ".regstream" / name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path / "mine", target_is_directory=True)
    for options in ((), ("--restart",)):
        result = invoke(command, merge.manifest, *(options if command == "run" else ("--only", "base")))
        assert result.exit_code in (0, 4), result.stderr
        assert read(list(before)) == before


def test_an_output_that_is_an_inputs_folder_by_another_name_is_refused(
    invoke: Invoke, inputs: Path, tmp_path: Path
) -> None:
    """A candidate whose files lie in the output of an earlier merge, by links, as a cache has them."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    merge = Merge(tmp_path / "manifest.toml", None, [])  # type: ignore[arg-type]
    run(invoke, merge)
    (tmp_path / "linked").mkdir()
    for path in merge.output.iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path)
    merge.manifest.write_text(merge.manifest.read_text().replace('"candidate-0"', '"linked"'))
    before = read(files_of(tmp_path))
    result = invoke("run", merge.manifest, "--restart")
    assert result.exit_code == 4
    assert "is also the input" in result.stderr
    assert read(list(before)) == before
