"""A rank that is killed, wherever in a step, ends the run; the same command goes on to the same bytes."""

import os
import re
import signal
from pathlib import Path

import pytest

from merging import make_merge
from parametrize import slow
from rank_merges import assert_all_well, on_ranks, run_on, shards
from regstream import api
from regstream.errors import InputError, RankError
from regstream.events import Event, Progressed, StepCommitted, StepStarted


class KillAt:
    """Kills the process at the first progress of a kind within a step, or once the step is committed."""

    def __init__(self, step: str, doing: str) -> None:
        self._step, self._doing, self._current = step, doing, ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._current = event.name
        is_there = isinstance(event, Progressed) and self._doing in event.doing
        is_there |= isinstance(event, StepCommitted) and self._doing == "committed"
        if is_there and self._current == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


PLACES = [
    ("stem", "stem"),
    ("block 0", "statistics"),
    ("block 1", "sums"),
    ("block 1", "solve"),
    ("block 1", "forward"),
    ("block 1", "committed"),
    ("head", "committed"),
]


@pytest.mark.parametrize(
    ("size", "killed", "step", "doing"),
    [
        (2, 1, "block 1", "sums"),
        *(slow(2, killed, *place) for killed in (0, 1) for place in PLACES),
        slow(3, 1, "block 1", "solve"),
        slow(3, 2, "block 0", "forward"),
    ],
)
def test_all_ranks_end_and_the_same_command_goes_on(
    tmp_path: Path, size: int, killed: int, step: str, doing: str
) -> None:
    merge, expected = (make_merge(tmp_path / name, num_rows=12, candidates=2) for name in ("killed", "whole"))

    def run() -> None:
        api.merge(
            api.plan(merge.read()), listener=KillAt(step, doing) if os.environ["RANK"] == str(killed) else _ignore
        )

    ended = on_ranks(merge, size, run)
    codes = [rank.code for rank in ended]
    assert codes.pop(killed) == -signal.SIGKILL
    assert set(codes) <= {RankError.exit_code, 0}  # 0: it was done when the other one died
    assert_all_well(run_on(size, merge))
    assert_all_well(run_on(size, expected))
    assert shards(merge.output) == shards(expected.output)


def test_an_error_that_a_program_handles_ends_the_others_too(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, num_rows=12)

    def listen(event: Event) -> None:
        if isinstance(event, StepCommitted) and os.environ["RANK"] == "1":
            raise InputError("the program has had enough")

    ended = on_ranks(merge, 2, lambda: api.merge(api.plan(merge.read()), listener=listen))
    assert [rank.code for rank in ended] == [InputError.exit_code] * 2
    assert re.search("rank 1 on .*: the program has had enough", ended[0].stdout)


def _ignore(event: Event) -> None:
    del event
