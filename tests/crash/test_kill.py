"""SIGKILL at every operation on the disk, and at random instants."""

import random
import signal
import time
from collections.abc import Callable

import pytest

from crash.faults import in_child, kill, killed_after, with_fault
from crash.resuming import Resuming

SIGKILLED = -signal.SIGKILL


def killed_at(resuming: Resuming, index: int) -> Callable[[], None]:
    """A run that is killed at operation `index`."""
    return lambda: with_fault(resuming.run, resuming.merge.output, index, kill)


def test_at_a_few_operations(resuming: Resuming, places: list[str]) -> None:
    for index in range(len(places) // 12, len(places), len(places) // 6):
        assert in_child(killed_at(resuming, index)) == SIGKILLED
        resuming.check(places[index])


@pytest.mark.slow
def test_at_every_operation(resuming: Resuming, places: list[str]) -> None:
    assert len(places) > 100
    for index, place in enumerate(places):
        assert in_child(killed_at(resuming, index)) == SIGKILLED, place
        resuming.check(place)


@pytest.mark.slow
def test_at_a_hundred_random_instants(resuming: Resuming) -> None:
    started = time.monotonic()
    assert in_child(resuming.run) == 0
    duration = time.monotonic() - started
    resuming.forget()
    instants = random.Random(0)
    num_killed = 0
    for _ in range(100):  # for each of two methods: 200 in all
        seconds = instants.uniform(0, duration)
        num_killed += killed_after(resuming.run, seconds) == SIGKILLED
        resuming.check(f"after {seconds:.3f} s")
    assert num_killed > 50


@pytest.mark.slow
def test_killed_again_and_again(resuming: Resuming, places: list[str]) -> None:
    """Every resumed run is killed too, further on each time, until one gets through."""
    for index in range(10, len(places), 10):
        if in_child(killed_at(resuming, index)) == 0:
            break
    resuming.begun.unlink()
    resuming.check("again and again")
