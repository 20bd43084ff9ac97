"""The profiler: every moment belongs to the innermost kind of work, and every product to the rate of its kind."""

import time

import pytest
import torch

from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.device.profiler import Profiler, product_rates

CPU = torch.device("cpu")
RATES = {default_precision(torch.float32): 100.0, default_precision(torch.bfloat16): 400.0}


def test_time_goes_to_the_innermost_kind() -> None:
    profiler = Profiler(CPU, lambda: RATES)
    with profiler.region("merged forward", flop=200.0, product=default_precision(torch.bfloat16)):
        time.sleep(0.02)
        with profiler.region("Gram matrices", flop=50.0):
            time.sleep(0.05)
        with profiler.region("Gram matrices", flop=50.0):
            pass
    entries = profiler.finish()
    assert 0.02 <= entries["merged forward"].seconds < 0.05 <= entries["Gram matrices"].seconds
    assert entries["merged forward"].product_seconds == 0.5
    assert (entries["Gram matrices"].flop, entries["Gram matrices"].product_seconds) == (100.0, 1.0)


def test_closing_begins_anew_and_loses_no_time() -> None:
    profiler = Profiler(CPU, lambda: RATES)
    profiler.finish()
    started = time.perf_counter()
    with profiler.region("writing", num_bytes=7):
        time.sleep(0.01)
    time.sleep(0.01)
    entries, took = profiler.finish(), time.perf_counter() - started
    assert entries["writing"].num_bytes == 7
    assert sum(entry.seconds for entry in entries.values()) == pytest.approx(took, abs=0.005)
    assert set(profiler.finish()) <= {"other"}


def test_beginning_forgets_what_came_before() -> None:
    profiler = Profiler(CPU, lambda: RATES)
    with profiler.region("writing", num_bytes=7):
        time.sleep(0.01)
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


def test_waiting_for_an_item_is_reading_and_using_it_is_not() -> None:
    def slow() -> object:
        for item in range(3):
            time.sleep(0.01)
            yield item

    profiler = Profiler(CPU, lambda: RATES)
    seen = []
    for item in profiler.timed_iter(slow()):  # type: ignore[arg-type,var-annotated]
        with profiler.region("solves"):
            time.sleep(0.02)
            seen.append(item)
    entries = profiler.finish()
    assert seen == [0, 1, 2]
    assert 0.03 <= entries["reading"].seconds < 0.06 <= entries["solves"].seconds


def test_an_error_leaves_the_ledger_usable() -> None:
    profiler = Profiler(CPU, lambda: RATES)
    with pytest.raises(KeyError), profiler.region("solves"):
        raise KeyError
    assert profiler._current == "other"
    assert "solves" in profiler.finish()


def test_rates_are_measured_for_each_way_of_forming_products() -> None:
    rates = product_rates(
        CPU, {default_precision(torch.float32): (64, 32, 16), MatmulPrecision(torch.float32, torch.bfloat16): (8, 8, 8)}
    )
    assert set(rates) == {default_precision(torch.float32), MatmulPrecision(torch.float32, torch.bfloat16)}
    assert all(rate > 0 for rate in rates.values())
