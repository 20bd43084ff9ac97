"""The profiler: every moment belongs to the innermost kind of work."""

import time

import pytest
import torch

from regstream.device.profiler import Profiler

CPU = torch.device("cpu")


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_time_goes_to_the_innermost_kind(clock: Clock) -> None:
    profiler = Profiler(CPU)
    with profiler.region("merged forward"):
        clock.passes(0.02)
        with profiler.region("Gram matrices"):
            clock.passes(0.05)
        with profiler.region("Gram matrices"):
            pass
    entries = profiler.finish()
    assert entries["merged forward"].seconds == pytest.approx(0.02)
    assert entries["Gram matrices"].seconds == pytest.approx(0.05)


def test_closing_begins_anew_and_loses_no_time(clock: Clock) -> None:
    profiler = Profiler(CPU)
    profiler.finish()
    with profiler.region("writing", num_bytes=7):
        clock.passes(0.01)
    clock.passes(0.01)
    entries = profiler.finish()
    assert entries["writing"].num_bytes == 7
    assert sum(entry.seconds for entry in entries.values()) == pytest.approx(0.02)
    assert set(profiler.finish()) <= {"other"}


def test_beginning_forgets_what_came_before(clock: Clock) -> None:
    profiler = Profiler(CPU)
    with profiler.region("writing", num_bytes=7):
        clock.passes(0.01)
    profiler.begin()
    with profiler.region("solves"):
        pass
    assert set(profiler.finish()) == {"solves", "other"}


def test_waiting_for_an_item_is_reading_and_using_it_is_not(clock: Clock) -> None:
    def slow() -> object:
        for item in range(3):
            clock.passes(0.01)
            yield item

    profiler = Profiler(CPU)
    seen = []
    for item in profiler.timed_iter(slow()):  # type: ignore[arg-type,var-annotated]
        with profiler.region("solves"):
            clock.passes(0.02)
            seen.append(item)
    entries = profiler.finish()
    assert seen == [0, 1, 2]
    assert entries["reading"].seconds == pytest.approx(0.03)
    assert entries["solves"].seconds == pytest.approx(0.06)


def test_an_error_leaves_the_profiler_usable(clock: Clock) -> None:
    profiler = Profiler(CPU)
    with pytest.raises(KeyError), profiler.region("solves"):
        raise KeyError
    clock.passes(1)
    entries = profiler.finish()
    assert entries["solves"].seconds == 0
    assert entries["other"].seconds == 1
