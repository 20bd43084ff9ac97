"""One run at a time in one output, however it is named; evaluations beside one another."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from crash.faults import in_child
from disk import no_waiting_for_the_disk
from parametrize import slow
from regstream.errors import ResumeError
from regstream.evaluation.evaluation import evaluate
from regstream.evaluation.representation_bias import representation_bias
from regstream.events import Event, StepStarted
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

__all__ = ["no_waiting_for_the_disk"]

Invoke = Callable[..., Result]


def plan_of(manifest: Path) -> Plan:
    return make_plan(read_manifest(manifest))


def written(manifest: Path, name: str, *changes: tuple[str, str]) -> Path:
    text = manifest.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (manifest.parent / name).write_text(text)
    return manifest.parent / name


@pytest.mark.parametrize(
    ("output", "workdir"),
    [
        ("linked", ""),
        *(slow(name, "") for name in ("merged", "other/../merged", "linked-parent/merged")),
        slow("merged", 'workdir = "elsewhere"\n'),
    ],
)
def test_a_second_run_into_the_same_output_is_refused(invoke: Invoke, fresh: Path, output: str, workdir: str) -> None:
    folder = fresh.parent
    (folder / "other").mkdir()
    (folder / "linked").symlink_to("merged")
    (folder / "linked-parent").symlink_to(folder)
    (folder / "other" / "linked").symlink_to("../merged")
    second = written(fresh, "second.toml", ('"merged"', f'"{output}"'), ("[resources]\n", f"[resources]\n{workdir}"))
    first = written(fresh, "first.toml", ("[resources]\n", '[resources]\nworkdir = "fast"\n'))
    said: list[str] = []

    def meanwhile(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            for options in ((), ("--restart",)):
                result = invoke("run", second, *options)
                assert result.exit_code == 5, result.stderr
                said.append(result.stderr.splitlines()[-1])

    run(plan_of(first), listener=meanwhile)
    assert len(said) == 2
    assert all(f"regstream, process {os.getpid()} on " in line for line in said)
    assert all(line.endswith("is running; wait for it or stop it") for line in said)
    assert invoke("verify", folder / "merged").exit_code == 0


@pytest.mark.slow
def test_a_finished_run_is_not_tidied_while_another_is_at_work(invoke: Invoke, finished: Path) -> None:
    state = finished.parent / "merged" / ".regstream"
    again = written(finished, "again.toml", ("[resources]\n", '[resources]\nworkdir = "fast"\n'))

    def meanwhile(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            before = sorted(state.rglob("*"))
            assert invoke("run", finished).exit_code == 5
            assert sorted(state.rglob("*")) == before

    run(plan_of(again), restart=True, listener=meanwhile)
    assert not state.exists()


def test_what_a_run_that_was_killed_at_its_very_end_left_goes(invoke: Invoke, finished: Path) -> None:
    state = finished.parent / "merged" / ".regstream"
    state.mkdir()
    assert "already finished" in invoke("run", finished).stderr
    assert not state.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_4(
    invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    result = invoke("run", fresh)
    assert result.exit_code == 4
    assert f"{fresh.parent / 'merged'}: its file system has no locks ({os.strerror(number)})" in result.stderr
    assert not list((fresh.parent / "merged").glob("*.safetensors"))


@pytest.mark.parametrize("command", [("plan",), ("run",), ("run", "--dry-run")], ids=" ".join)
@pytest.mark.parametrize("where", ["output", "workdir"])
def test_where_nothing_can_be_written_is_4(
    invoke: Invoke, fresh: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], where: str
) -> None:
    (fresh.parent / "fast").mkdir()
    (fresh.parent / "merged").mkdir()
    fresh.write_text(fresh.read_text() + 'workdir = "fast"\n')
    closed = fresh.parent / ("merged" if where == "output" else "fast")
    # The superuser, as whom tests may run, is let in by permissions everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    result = invoke(*command, fresh)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1].endswith(f": {closed} denies write permission; choose another folder")
    assert not list(closed.iterdir())


def work_of(kind: str) -> Callable[..., object]:
    return evaluate if kind == "evaluate" else representation_bias


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "workdir"),
    [
        ("evaluate", "evaluate", ""),
        slow("bias", "evaluate", 'workdir = "fast"\n'),
    ],
)
def test_two_evaluations_at_once_do_not_disturb_each_other(finished: Path, one: str, other: str, workdir: str) -> None:
    finished.write_text(finished.read_text() + workdir)
    plan = plan_of(finished)
    alone = work_of(one)(plan), work_of(other)(plan)
    meanwhile = []

    def start(event: Event) -> None:
        if isinstance(event, StepStarted) and event.index == 1:
            meanwhile.append(work_of(other)(plan))

    assert work_of(one)(plan, listener=start) == alone[0]
    assert meanwhile == [alone[1]]
    assert not plan.workdir.exists()
    assert not (finished.parent / "fast").exists()


@pytest.mark.slow
def test_what_another_killed_evaluation_left_goes_and_a_living_one_stays(finished: Path) -> None:
    plan = plan_of(finished)

    def killed(event: Event) -> None:
        if isinstance(event, StepStarted) and event.index == 2:
            os._exit(9)

    assert in_child(lambda: evaluate(plan, only=["base"], listener=killed)) == 9
    [left] = plan.workdir.iterdir()
    assert left.name.startswith("evaluate-")
    seen: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, StepStarted) and event.index == 2:
            assert not left.exists()
            seen.append(len(list(plan.workdir.iterdir())))
            if len(seen) == 1:
                evaluate(plan, listener=count)

    evaluate(plan, listener=count)
    assert seen == [1, 2]
    assert not plan.workdir.exists()


@pytest.mark.slow
def test_a_run_leaves_an_evaluation_its_folder(invoke: Invoke, finished: Path) -> None:
    plan = plan_of(finished)

    def run_meanwhile(event: Event) -> None:
        if isinstance(event, StepStarted) and event.index == 2:
            assert invoke("run", finished, "--restart").exit_code == 0

    assert evaluate(plan, listener=run_meanwhile) == evaluate(plan)
    assert not plan.workdir.exists()


def test_results_are_not_put_on_record_while_a_run_is_at_work(
    invoke: Invoke, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regstream import api
    from regstream.storage.locking import exclusive_lock

    plan = plan_of(finished)
    plan.state.mkdir()
    before = (plan.output / "regstream.json").read_bytes()
    with exclusive_lock(plan.state / "lock", plan.output), pytest.raises(ResumeError, match="is running"):
        api.add_results(plan.output, bias=[])
    assert (plan.output / "regstream.json").read_bytes() == before


@pytest.fixture
def piped() -> Iterator[Callable[[str], Path]]:
    """A path that gives a text once, as `<(…)` does."""
    opened: list[int] = []

    def pipe(text: str) -> Path:
        reader, writer = os.pipe()
        os.write(writer, text.encode())
        os.close(writer)
        opened.append(reader)
        return Path(f"/dev/fd/{reader}")

    yield pipe
    for reader in opened:
        os.close(reader)


@pytest.mark.slow
def test_a_manifest_from_a_pipe_is_recorded_as_it_was_read(
    invoke: Invoke, fresh: Path, piped: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(
        fresh.parent
    )  # where relative paths start from, for want of a file that they could be relative to
    text = fresh.read_text()
    assert invoke("plan", piped(text)).exit_code == 0
    result = invoke("run", piped(text))
    assert result.exit_code == 0, result.stderr
    assert json.loads((fresh.parent / "merged" / "regstream.json").read_text())["manifest"] == text
    assert text.strip() in (fresh.parent / "merged" / "README.md").read_text()
    assert "already finished" in invoke("run", fresh).stderr
    assert invoke("evaluate", piped(text)).exit_code == 0
    assert text.strip() in (fresh.parent / "merged" / "README.md").read_text()
