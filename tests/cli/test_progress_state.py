"""The progress state sums up events."""

import pytest

from regstream.events import Fetching, Progressed, RunStarted, StepCommitted, StepStarted
from regstream_cli.progress_state import ProgressState, mean_block_seconds
from regstream_cli.streams import event_record


def _committed(index: int, name: str, seconds: float) -> StepCommitted:
    return StepCommitted(index=index, name=name, seconds=seconds, peak_bytes=10 - index, projected_bytes=20)


def test_it_counts_steps_and_work() -> None:
    state = ProgressState()
    for event in (
        RunStarted(done=1, total=4, output="out"),
        StepStarted(index=1, name="block 0", work=4),
        Progressed(doing="math: statistics", amount=3),
    ):
        state(event)
    assert (state.done, state.total, state.fraction, state.doing) == (1, 4, 0.75, "math: statistics")
    assert state.stop_message() == "out: stopped in block 0, 1 of 4 steps are committed; rerun the command to resume"
    state(_committed(1, "block 0", 5.0))
    assert (state.done, state.fraction, state.peak_bytes) == (2, 0.0, 9)


def test_more_work_than_announced_is_not_more_than_all() -> None:
    state = ProgressState()
    state(StepStarted(index=0, name="stem", work=2))
    state(Progressed(doing="math: stem", amount=5))
    assert state.fraction == 1.0


def test_a_file_is_waited_for_until_something_else_happens() -> None:
    state = ProgressState()
    fetching = Fetching(file="org/model: model.safetensors", num_bytes=1, total_bytes=2)
    state(fetching)
    assert state.fetching == fetching
    state(Progressed(doing="math: statistics"))
    assert state.fetching is None


def test_time_left_follows_the_blocks_not_the_stem() -> None:
    state = ProgressState()
    state(RunStarted(done=0, total=5, output="out"))
    state(_committed(0, "stem", 100.0))
    assert state.seconds_left is None
    state(StepStarted(index=1, name="block 0", work=1))
    state(_committed(1, "block 0", 7.0))
    assert state.seconds_left == pytest.approx(21.0, abs=0.5)


def test_time_left_follows_what_steps_cost() -> None:
    state = ProgressState()
    state(RunStarted(done=0, total=4, output="out", costs=(0, 100, 100, 350)))
    state(_committed(1, "block 0", 7.0))
    assert state.seconds_left == pytest.approx(31.5, abs=0.5)
    state(_committed(2, "block 1", 9.0))
    assert state.seconds_left == pytest.approx(28.0, abs=0.5)


def test_no_block_no_pace() -> None:
    assert mean_block_seconds([("stem", 1.0)]) is None
    assert mean_block_seconds([("stem", 1.0), ("block 0", 2.0), ("block 1", 4.0)]) == 3.0


def test_an_event_for_json_has_its_kind() -> None:
    record = event_record(_committed(2, "block 1", 0.5))
    assert record["event"] == "step_committed"
    assert record["name"] == "block 1"
