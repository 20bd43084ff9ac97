"""The profiler: every moment belongs to the innermost kind of work."""

import time

import pytest
import torch

from regstream.device.profiler import Profiler

CPU = torch.device("cpu")


def test_time_goes_to_the_innermost_kind() -> None:
    profiler = Profiler(CPU)
    with profiler.region("merged forward"):
        time.sleep(0.02)
        with profiler.region("Gram matrices"):
            time.sleep(0.05)
        with profiler.region("Gram matrices"):
            pass
    entries = profiler.finish()
    assert 0.02 <= entries["merged forward"].seconds < 0.05 <= entries["Gram matrices"].seconds


def test_closing_begins_anew_and_loses_no_time() -> None:
    profiler = Profiler(CPU)
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
    profiler = Profiler(CPU)
    with profiler.region("writing", num_bytes=7):
        time.sleep(0.01)
    profiler.begin()
    with profiler.region("solves"):
        pass
    assert set(profiler.finish()) == {"solves", "other"}


def test_waiting_for_an_item_is_reading_and_using_it_is_not() -> None:
    def slow() -> object:
        for item in range(3):
            time.sleep(0.01)
            yield item

    profiler = Profiler(CPU)
    seen = []
    for item in profiler.timed_iter(slow()):  # type: ignore[arg-type,var-annotated]
        with profiler.region("solves"):
            time.sleep(0.02)
            seen.append(item)
    entries = profiler.finish()
    assert seen == [0, 1, 2]
    assert 0.03 <= entries["reading"].seconds < 0.06 <= entries["solves"].seconds


def test_an_error_leaves_the_profiler_usable() -> None:
    profiler = Profiler(CPU)
    with pytest.raises(KeyError), profiler.region("solves"):
        raise KeyError
    assert "solves" in profiler.finish()
