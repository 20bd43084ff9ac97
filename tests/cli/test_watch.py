"""What a watch makes of events."""

import pytest

from regstream.events import Fetching, Progressed, RunStarted, StepCommitted, StepStarted
from regstream_cli.streams import event_record
from regstream_cli.watch import ProgressState, mean_step_seconds


def _committed(index: int, name: str, seconds: float) -> StepCommitted:
    return StepCommitted(index=index, name=name, seconds=seconds, peak_bytes=10 - index, projected_bytes=20)


def test_it_counts_steps_and_work() -> None:
    watch = ProgressState()
    for event in (
        RunStarted(done=1, total=4, output="out"),
        StepStarted(index=1, name="block 0", work=4),
        Progressed(doing="math: statistics", amount=3),
    ):
        watch(event)
    assert (watch.done, watch.total, watch.fraction, watch.doing) == (1, 4, 0.75, "math: statistics")
    assert watch.standing() == "out: stopped in block 0, 1 of 4 steps are committed; the same command goes on"
    watch(_committed(1, "block 0", 5.0))
    assert (watch.done, watch.fraction, watch.peak_bytes) == (2, 0.0, 9)


def test_more_work_than_announced_is_not_more_than_all() -> None:
    watch = ProgressState()
    watch(StepStarted(index=0, name="stem", work=2))
    watch(Progressed(doing="math: stem", amount=5))
    assert watch.fraction == 1.0


def test_a_file_is_waited_for_until_something_else_happens() -> None:
    watch = ProgressState()
    fetching = Fetching(file="org/model: model.safetensors", num_bytes=1, total_bytes=2)
    watch(fetching)
    assert watch.fetching == fetching
    watch(Progressed(doing="math: statistics"))
    assert watch.fetching is None


def test_time_left_follows_the_blocks_not_the_stem() -> None:
    watch = ProgressState()
    watch(RunStarted(done=0, total=5, output="out"))
    watch(_committed(0, "stem", 100.0))
    assert watch.seconds_left is None
    watch(StepStarted(index=1, name="block 0", work=1))
    watch(_committed(1, "block 0", 7.0))
    assert watch.seconds_left == pytest.approx(21.0, abs=0.5)


def test_no_block_no_pace() -> None:
    assert mean_step_seconds([("stem", 1.0)]) is None
    assert mean_step_seconds([("stem", 1.0), ("block 0", 2.0), ("block 1", 4.0)]) == 3.0


def test_an_event_for_json_has_its_kind() -> None:
    record = event_record(_committed(2, "block 1", 0.5))
    assert record["event"] == "step_committed"
    assert record["name"] == "block 1"
