"""What was committed is checked before a run goes on, and inputs are watched until it ends."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from disk import no_waiting_for_the_disk
from merging import Merge, make_merge, warnings_in
from parametrize import slow
from regstream.errors import InputError, Interrupted, ResumeError
from regstream.events import Event, StepStarted

__all__ = ["no_waiting_for_the_disk"]

Invoke = Callable[..., Result]
SHARD = "model-00002-of-00004.safetensors"
KINDS = {"a shard a step": "", "shared shards": 'shard_size = "5KiB"\n'}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_merge(folder, layers=2, hidden=8, candidates=2, num_rows=4)
    return folder


@pytest.fixture
def merge(inputs: Path, tmp_path: Path) -> Merge:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    return Merge(tmp_path / "manifest.toml", None, [])  # type: ignore[arg-type]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    return shards(Merge(folder / "manifest.toml", None, []).run())  # type: ignore[arg-type]


def begin(merge: Merge, until: str = "head") -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == until:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        merge.run(listener=stop)


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "changed": flip,
    "cut": lambda path: os.truncate(path, 100),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "a link": lambda path: path.symlink_to(path.rename(path.with_name("x"))),
}


@pytest.mark.parametrize(
    ("kind", "number"), [("missing", 1), ("changed", 3), slow("cut", 2), slow("longer", 3), slow("a link", 2)]
)
def test_a_committed_shard_that_is_not_what_it_was_is_made_again(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes], kind: str, number: int
) -> None:
    begin(merge)
    DAMAGE[kind](merge.output / f"model-{number:05d}-of-00004.safetensors")
    result = invoke("run", merge.manifest)
    assert result.exit_code == 0, result.stderr
    assert f"running {['stem', 'block 0', 'block 1'][number - 1]} and the steps after it again" in result.stderr
    assert shards(merge.output) == expected
    assert invoke("verify", merge.output).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size"), [("changed", "1GiB"), *(slow(kind, "12KiB") for kind in ("missing", "changed", "cut"))]
)
def test_so_is_a_part_of_one(invoke: Invoke, merge: Merge, kind: str, size: str) -> None:
    merge.manifest.write_text(merge.manifest.read_text().replace("[merge]", f'[merge]\nshard_size = "{size}"'))
    whole = shards(merge.run())
    shutil.rmtree(merge.output)
    begin(merge)
    for path in [*merge.output.glob("*.safetensors"), *merge.output.glob(".regstream/*.safetensors.partial")]:
        DAMAGE[kind](path)
        result = invoke("run", merge.manifest)
        assert result.exit_code == 0, result.stderr
        assert "and the steps after it again" in result.stderr
        assert shards(merge.output) == whole
        shutil.rmtree(merge.output)
        begin(merge)


def test_a_shard_that_goes_while_the_run_is_under_way_is_noticed_before_it_ends(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes]
) -> None:
    def remove(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "head":
            (merge.output / SHARD).unlink()

    with pytest.raises(ResumeError, match=f"{SHARD}: missing"):
        merge.run(listener=remove)
    assert not (merge.output / "config.json").exists()
    assert invoke("run", merge.manifest).exit_code == 0
    assert shards(merge.output) == expected


@pytest.mark.slow
def test_an_output_that_is_renamed_in_the_manifest_begins_anew(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes]
) -> None:
    merge.manifest.write_text(merge.manifest.read_text() + 'workdir = "fast"\n')
    begin(merge)
    merge.manifest.write_text(merge.manifest.read_text().replace('"merged"', '"renamed"'))
    result = invoke("run", merge.manifest)
    assert result.exit_code == 0, result.stderr
    assert "going on" not in result.stderr
    assert shards(merge.manifest.parent / "renamed") == expected


@pytest.mark.parametrize("workdir", ["", slow('workdir = "fast"\n')])
def test_an_output_that_was_moved_ends_whole(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes], workdir: str
) -> None:
    merge.manifest.write_text(merge.manifest.read_text() + workdir)
    begin(merge)
    merge.output.rename(merge.manifest.parent / "moved")
    merge.manifest.write_text(merge.manifest.read_text().replace('"merged"', '"moved"'))
    result = invoke("run", merge.manifest)
    assert result.exit_code == 0, result.stderr
    assert ("resuming after 3 of 4" in result.stderr) == (not workdir)
    assert shards(merge.manifest.parent / "moved") == expected
    assert invoke("verify", merge.manifest.parent / "moved").exit_code == 0


def test_an_output_that_is_gone_is_made_again_where_the_state_lies_elsewhere(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes]
) -> None:
    merge.manifest.write_text(merge.manifest.read_text() + 'workdir = "fast"\n')
    begin(merge)
    shutil.rmtree(merge.output)
    result = invoke("run", merge.manifest)
    assert result.exit_code == 0, result.stderr
    assert "running stem and the steps after it again" in result.stderr
    assert shards(merge.output) == expected


@pytest.mark.parametrize("kind", ["missing", "changed"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("run",), SHARD),
        (("run",), "config.json"),
        (("run", "--full-digest"), SHARD),
        (("evaluate",), SHARD),
        (("bias",), SHARD),
        slow(("run",), "tokenizer.json"),
        slow(("run",), "model.safetensors.index.json"),
    ],
)
def test_a_finished_result_that_is_not_what_was_made_is_refused(
    invoke: Invoke, finished: Path, name: str, kind: str, command: tuple[str, ...]
) -> None:
    name = name.replace("of-00004", "of-00007")
    DAMAGE[kind](finished.parent / "merged" / name)
    result = invoke(*command, finished)
    assert result.exit_code == 5, result.stderr
    assert name in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_card_may_be_edited(invoke: Invoke, finished: Path) -> None:
    card = finished.parent / "merged" / "README.md"
    card.write_text("mine")
    assert "already finished" in invoke("run", finished).stderr
    result = invoke("evaluate", finished)
    assert result.exit_code == 0
    assert "README.md: edited or removed since it was written; the results are not added" in result.stderr
    assert card.read_text() == "mine"


@pytest.mark.parametrize("command", ["run", "evaluate", "bias"])
def test_a_result_of_other_settings_is_refused(invoke: Invoke, finished: Path, command: str) -> None:
    finished.write_text(finished.read_text().replace("[merge]", "[merge]\nalpha = 0.5"))
    result = invoke(command, finished)
    assert result.exit_code == 5
    assert "regstream: error: manifest alpha: 0.95 before, 0.5 now; set it back" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "bias"])
def test_so_is_one_of_other_inputs_but_not_where_it_is_not_judged(invoke: Invoke, finished: Path, command: str) -> None:
    flip(finished.parent / "candidate-1" / "model.safetensors", -3)
    result = invoke(command, finished)
    assert result.exit_code == 5
    assert "candidates task1 shard 1 of 1, model.safetensors digest of samples" in result.stderr
    assert invoke(command, finished, "--only", "mean").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [((), ("--full-digest",)), slow(("--full-digest",), ())])
def test_full_digests_are_no_change(
    invoke: Invoke, merge: Merge, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "head":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        merge.run(listener=stop, full_digest=bool(first))
    assert "resuming after 3" in invoke("run", merge.manifest, *then).stderr
    assert "already finished" in invoke("run", merge.manifest, *first).stderr
    assert "already finished" in invoke("run", merge.manifest, *then).stderr


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("candidate-1/model.safetensors", "written to"),
        ("task0.jsonl", "gone"),
        slow("base/model.safetensors", "written to"),
        slow("base/config.json", "written to"),
        slow("base/tokenizer.json", "replaced"),
        slow("candidate-1/model.safetensors", "replaced"),
        slow("candidate-1/model.safetensors", "gone"),
        slow("task0.jsonl", "written to"),
    ],
)
def test_an_input_that_is_replaced_meanwhile_is_noticed_and_nothing_of_it_committed(
    invoke: Invoke, merge: Merge, expected: dict[str, bytes], name: str, how: str
) -> None:
    path = merge.manifest.parent / name
    data = path.read_bytes()

    def replace(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            changed = bytearray(data)
            changed[-3] ^= 1
            if how != "written to":
                path.unlink()
            if how != "gone":
                path.write_bytes(changed)

    # What is gone may be missed before the step ends.
    with pytest.raises((ResumeError, InputError) if how == "gone" else ResumeError) as caught:
        merge.run(listener=replace)
    message = str(caught.value)
    assert "since the run began" in message or how == "gone"
    assert Path(name).name in message
    assert not (merge.output / "regstream.json").exists()
    path.write_bytes(data)
    result = invoke("run", merge.manifest)
    assert "resuming after 2 of 4 steps" in result.stderr
    assert shards(merge.output) == expected


@pytest.mark.slow
def test_an_input_that_was_only_touched_is_a_warning_that_full_digests_do_without(merge: Merge) -> None:
    events: list[Event] = []

    def touch(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            (merge.manifest.parent / "base" / "model.safetensors").touch()
        events.append(event)

    merge.run(listener=touch)
    [warned] = warnings_in(events)
    assert "written to since the run began" in warned
    shutil.rmtree(merge.output)
    events.clear()
    merge.run(listener=touch, full_digest=True)
    assert warnings_in(events) == []
