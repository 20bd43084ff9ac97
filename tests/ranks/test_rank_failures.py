"""When a rank fails, dies or stops, all others end, with one exit code and one line in all."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rank_processes import EndedRank, run_ranks, started_ranks
from regstream.errors import InputError
from regstream.events import Progressed, RunStarted, StepStarted
from regstream.ranks import watch
from regstream.ranks.group import current_ranks
from regstream_cli import ranks as command
from regstream_cli.observers import observe_progress

if TYPE_CHECKING:
    from regstream.ranks.group import Ranks

_ALL_ENDED_SECONDS = 30.0  # as documented
_READY = "ready"


def _command(body: "Callable[[Ranks], object]", *, silent_seconds: float | None = None) -> Callable[[], int]:
    """A command that several ranks work on."""

    def run() -> int:
        watch.SILENT_SECONDS = silent_seconds or watch.SILENT_SECONDS
        command.begin([])
        try:
            ranks = command.join()
            assert ranks is not None
            body(ranks)
            command.finish()
        except (Exception, KeyboardInterrupt) as error:
            return command.report_failure(error, debug=False)
        return 0

    return run


def _compute(ranks: "Ranks") -> None:
    while True:
        ranks.check()
        threading.Event().wait(0.02)


def _is_stuck(ranks: "Ranks") -> None:
    while True:
        signal.pause()


def _each_does(*bodies: "Callable[[Ranks], object]") -> "Callable[[Ranks], object]":
    def body(ranks: "Ranks") -> None:
        os.write(2, f"{_READY}\n".encode())  # where Python writes nothing
        bodies[ranks.rank](ranks)

    return body


def _gather(ranks: "Ranks") -> None:
    ranks.gather(ranks.rank)


def _line(ended: Iterable[EndedRank]) -> str:
    """What all ranks together have written."""
    return "".join(rank.stderr for rank in ended).replace(f"{_READY}\n", "")


def _died(rank: int, *, said_by: int = 0) -> re.Pattern[str]:
    prefix = f"rank {said_by}: " * (said_by > 0)
    advice = "ended without a message; rerun the command to resume"
    return re.compile(rf"regstream: {prefix}error: rank {rank} on \S+ {advice}\n")


def _fail(ranks: "Ranks") -> None:
    raise InputError("data.jsonl: line 3 is damaged")


def test_ranks_that_are_done_end_together(tmp_path: Path) -> None:
    assert [rank.code for rank in run_ranks(3, _command(_gather), tmp_path)] == [0, 0, 0]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_rank_ends_all(failing: int, tmp_path: Path) -> None:
    bodies = [_gather, _gather, _compute]
    bodies[failing] = _fail
    ended = run_ranks(3, _command(_each_does(*bodies)), tmp_path)
    assert [rank.code for rank in ended] == [InputError.exit_code] * 3
    label = r"rank 1 on \S+: " if failing else ""
    assert re.fullmatch(rf"regstream: error: {label}data\.jsonl: line 3 is damaged\n", _line(ended))


def test_an_error_of_all_ranks_is_written_once(tmp_path: Path) -> None:
    ended = run_ranks(3, _command(_fail), tmp_path)
    assert [rank.code for rank in ended] == [InputError.exit_code] * 3
    assert _line(ended) == "regstream: error: data.jsonl: line 3 is damaged\n"


def test_an_exception_of_a_program_reaches_all(tmp_path: Path) -> None:
    def program() -> None:
        ranks = current_ranks()
        if not ranks.is_first:
            raise ValueError("no such task")
        ranks.gather(ranks.rank)

    first, second = run_ranks(2, program, tmp_path)
    assert (first.code, second.code) == (1, 1)
    assert re.search(r"RankError: rank 1 on \S+: unexpected error: ValueError: no such task\n$", first.stderr)


def test_a_program_need_not_close(tmp_path: Path) -> None:
    assert [rank.code for rank in run_ranks(3, lambda: _gather(current_ranks()), tmp_path)] == [0, 0, 0]


def test_an_error_of_a_rank_at_its_end_is_one_of_all(tmp_path: Path) -> None:
    ended = run_ranks(2, _command(_each_does(lambda ranks: None, _fail)), tmp_path)
    assert [rank.code for rank in ended] == [InputError.exit_code] * 2


def test_a_rank_that_is_killed_ends_those_that_compute_and_those_that_wait_for_it(tmp_path: Path) -> None:
    work = _command(_each_does(_compute, _gather, _is_stuck), silent_seconds=3)
    with started_ranks(3, work, tmp_path) as ranks:
        ranks.wait_for(_READY, stream="stderr")
        ranks.send(2, signal.SIGKILL)
        ended = ranks.wait(0, 1)
    assert [rank.code for rank in ended] == [1, 1]
    assert _died(2).fullmatch(_line(ended))


def test_the_first_rank_that_lives_writes_of_rank_0(tmp_path: Path) -> None:
    with started_ranks(3, _command(_each_does(_compute, _compute, _compute)), tmp_path) as ranks:
        ranks.wait_for(_READY, stream="stderr")
        ranks.send(0, signal.SIGKILL)
        ended = ranks.wait(1, 2)
    assert [rank.code for rank in ended] == [1, 1]
    assert _died(0, said_by=1).fullmatch(_line(ended))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "dying", "number"),
    [(_compute, 2, signal.SIGKILL), (_gather, 0, signal.SIGSTOP), (_is_stuck, 2, signal.SIGSTOP)],
)
def test_all_end_within_the_stated_time(
    others: "Callable[[Ranks], None]", dying: int, number: signal.Signals, tmp_path: Path
) -> None:
    bodies = [others] * 3
    bodies[dying] = _is_stuck
    living = [rank for rank in range(3) if rank != dying]
    with started_ranks(3, _command(_each_does(*bodies)), tmp_path) as ranks:
        ranks.wait_for(_READY, stream="stderr")
        ranks.send(dying, number)
        ended = ranks.wait(*living, seconds=_ALL_ENDED_SECONDS)
    assert [rank.code for rank in ended] == [1, 1]
    assert _died(dying, said_by=living[0]).fullmatch(_line(ended))


def _work_in_steps(ranks: "Ranks") -> None:
    with observe_progress() as listener:
        listener(RunStarted(done=0, total=2, output="out"))
        listener(StepStarted(index=0, name="stem", work=1))
        os.write(2, f"{_READY}\n".encode())
        while True:
            ranks.check()
            listener(Progressed(doing="math: statistics"))
            threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("interrupted", "number"),
    [((0, 1), signal.SIGINT), ((0, 1), signal.SIGTERM), ((0,), signal.SIGINT), ((1,), signal.SIGTERM)],
)
def test_an_interruption_of_some_ranks_ends_all(
    interrupted: tuple[int, ...], number: signal.Signals, tmp_path: Path
) -> None:
    with started_ranks(2, _command(_work_in_steps), tmp_path) as ranks:
        ranks.wait_for(_READY, stream="stderr")
        for rank in interrupted:
            ranks.send(rank, number)
        ended = ranks.wait()
    assert [rank.code for rank in ended] == [130, 130]
    lines = [line for line in _line(ended).splitlines() if "stopping at the next safe point" not in line]
    assert len(lines) == 1
    text = "out: stopped in stem, 0 of 2 steps are committed; rerun the command to resume"
    assert re.fullmatch(rf"regstream: interrupted: (rank 1 on \S+: )?{text}", lines[0])


def test_rank_0_sees_what_the_others_do(tmp_path: Path) -> None:
    def report(ranks: "Ranks") -> None:
        ranks.report("block 3", fraction=0.25, doing="math: statistics")
        limit = time.monotonic() + 60
        while ranks.is_first and ranks.reports()[0].step != "block 3" and time.monotonic() < limit:
            ranks.check()
        if ranks.is_first:
            print(ranks.reports()[0])

    first, _ = run_ranks(2, _command(report), tmp_path)
    assert "rank=1" in first.stdout
    assert "step='block 3', fraction=0.25, doing='math: statistics'" in first.stdout
