"""The profiler: every moment belongs to the innermost kind of work, and every product to the rate of its kind."""

import time

import pytest
import torch

from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.device.profiler import Profiler, product_rates

CPU = torch.device("cpu")
RATES = {default_precision(torch.float32): 100.0, default_precision(torch.bfloat16): 400.0}


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
    profiler = Profiler(CPU, lambda: RATES)
    with profiler.region("merged forward", flop=200.0, product=default_precision(torch.bfloat16)):
        clock.passes(0.02)
        with profiler.region("Gram matrices", flop=50.0):
            clock.passes(0.05)
        with profiler.region("Gram matrices", flop=50.0):
            pass
    entries = profiler.finish()
    assert entries["merged forward"].seconds == pytest.approx(0.02)
    assert entries["Gram matrices"].seconds == pytest.approx(0.05)
    assert entries["merged forward"].product_seconds == 0.5
    assert (entries["Gram matrices"].flop, entries["Gram matrices"].product_seconds) == (100.0, 1.0)


def test_closing_begins_anew_and_loses_no_time(clock: Clock) -> None:
    profiler = Profiler(CPU, lambda: RATES)
    profiler.finish()
    with profiler.region("writing", num_bytes=7):
        clock.passes(0.01)
    clock.passes(0.01)
    entries = profiler.finish()
    assert entries["writing"].num_bytes == 7
    assert sum(entry.seconds for entry in entries.values()) == pytest.approx(0.02)
    assert set(profiler.finish()) <= {"other"}


def test_beginning_forgets_what_came_before(clock: Clock) -> None:
    profiler = Profiler(CPU, lambda: RATES)
    with profiler.region("writing", num_bytes=7):
        clock.passes(0.01)
    profiler.begin()
    with profiler.region("solves"):
        pass
    assert set(profiler.finish()) == {"solves", "other"}


def test_rates_are_measured_again_after_a_while_and_each_holds_for_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    measured = iter([100.0, 50.0, 25.0])
    profiler = Profiler(CPU, lambda: {default_precision(torch.float32): next(measured)})
    told = []
    for looks in ([1.0, 2.0], [3.0, 14.0], [15.0, 40.0]):
        clock[0] = looks[0]
        profiler.begin()
        with profiler.region("solves", flop=100.0):
            clock[0] = looks[1]
            profiler.look()
        told.append(profiler.finish()["solves"].product_seconds)
    assert told == [1.0, 1.5, 3.0]


def test_waiting_for_an_item_is_reading_and_using_it_is_not(clock: Clock) -> None:
    def slow() -> object:
        for item in range(3):
            clock.passes(0.01)
            yield item

    profiler = Profiler(CPU, lambda: RATES)
    seen = []
    for item in profiler.timed_iter(slow()):  # type: ignore[arg-type,var-annotated]
        with profiler.region("solves"):
            clock.passes(0.02)
            seen.append(item)
    entries = profiler.finish()
    assert seen == [0, 1, 2]
    assert entries["reading"].seconds == pytest.approx(0.03)
    assert entries["solves"].seconds == pytest.approx(0.06)


def test_an_error_leaves_the_ledger_usable(clock: Clock) -> None:
    profiler = Profiler(CPU, lambda: RATES)
    with pytest.raises(KeyError), profiler.region("solves"):
        raise KeyError
    clock.passes(1)
    entries = profiler.finish()
    assert entries["solves"].seconds == 0
    assert entries["other"].seconds == 1


def test_rates_are_measured_for_each_way_of_forming_products() -> None:
    rates = product_rates(
        CPU, {default_precision(torch.float32): (64, 32, 16), MatmulPrecision(torch.float32, torch.bfloat16): (8, 8, 8)}
    )
    assert set(rates) == {default_precision(torch.float32), MatmulPrecision(torch.float32, torch.bfloat16)}
    assert all(rate > 0 for rate in rates.values())
