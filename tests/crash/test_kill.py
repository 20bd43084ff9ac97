"""SIGKILL at every operation on the disk, and at random instants."""

import random
import signal
import time
from collections.abc import Callable

import pytest

from crash.faults import in_child, kill, of_every_kind, with_fault
from crash.resuming import Resuming

SIGKILLED = -signal.SIGKILL


def killed_at(resuming: Resuming, index: int) -> Callable[[], None]:
    """A run that is killed at operation `index`."""
    return lambda: with_fault(resuming.run, resuming.merge.output, index, kill)


@pytest.mark.parametrize("kind", ["regmean++"], indirect=True)
def test_at_a_few_operations(resuming: Resuming, places: list[str]) -> None:
    for index in range(len(places) // 12, len(places), len(places) // 3):
        assert in_child(killed_at(resuming, index)) == SIGKILLED
        resuming.check(places[index])


@pytest.mark.slow
def test_at_every_kind_of_operation(resuming: Resuming, places: list[str], kinds_before: set[str]) -> None:
    chosen = of_every_kind(places, seed=0, without=kinds_before, fsync=False)
    assert kinds_before or len(chosen) > 30  # other merges may go through no other kinds
    codes = []
    for index in chosen:
        codes.append(in_child(killed_at(resuming, index)))
        resuming.check(places[index])
    # zarr's own threads may make a folder in one attempt or in two, so a run can be a few operations shorter.
    assert set(codes[:-8]) <= {SIGKILLED}
    assert set(codes) <= {SIGKILLED, 0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared shards"], indirect=True)
def test_at_random_instants(resuming: Resuming) -> None:
    started = time.monotonic()
    assert in_child(resuming.run) == 0
    duration = time.monotonic() - started
    resuming.forget()
    instants = random.Random(0)
    num_killed = 0
    while num_killed < 6:
        seconds = instants.uniform(0, duration)
        if in_child(resuming.run, killed_after=seconds) == SIGKILLED:
            num_killed += 1
        else:
            duration *= 0.9  # the machine has become faster since
        resuming.check(f"after {seconds:.3f} s")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared shards"], indirect=True)
def test_killed_again_and_again(resuming: Resuming, places: list[str]) -> None:
    """Every resumed run is killed too, further on each time, until one gets through."""
    for index in range(10, len(places), 10):
        if in_child(killed_at(resuming, index)) == 0:
            break
    resuming.begun.unlink()
    resuming.check("again and again")
