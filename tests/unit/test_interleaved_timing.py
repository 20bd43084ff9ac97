"""Commands that are timed in turns."""

import os
import sys
import time
from itertools import pairwise

import psutil
import pytest

from bench.interleaved_timing import alternate

WORKS = """
import sys, time
for step in range({steps}):
    time.sleep(0.01)
    print(time.monotonic(), file=sys.stderr, flush=True)
"""


def works(steps: int) -> list[str]:
    """A command that says for a while what time it is."""
    return [sys.executable, "-S", "-c", WORKS.format(steps=steps)]


@pytest.mark.slow
def test_one_at_a_time_each_to_its_end() -> None:
    started = time.monotonic()
    first, second = alternate(works(100), works(50))
    took = time.monotonic() - started

    assert (len(first.said), len(second.said)) == (100, 50)
    assert first.seconds + second.seconds <= took
    stamps = sorted((float(line), name) for name, command in enumerate((first, second)) for _, line in command.said)
    switches = sum(before[1] != after[1] for before, after in pairwise(stamps))
    assert 2 <= switches <= 25  # side by side there would be some hundred


@pytest.mark.slow
def test_lines_are_told_by_the_seconds_that_a_command_had() -> None:
    first, second = alternate(works(100), works(100))
    for command in (first, second):
        told = [at for at, _ in command.said]
        assert told == sorted(told)
        assert told[-1] <= command.seconds
    assert first.said[-1][0] < float(first.said[-1][1]) - float(first.said[0][1])  # the other's turns do not count


def test_a_failure_is_told_and_nothing_goes_on() -> None:
    fails = [sys.executable, "-S", "-c", "import os, sys; sys.exit(f'out of {os.getppid()}')"]
    with pytest.raises(SystemExit, match=f"failed:\nout of {os.getpid()}"):
        alternate(works(10_000), fails)
    left = [child for child in psutil.Process().children() if "range(10000)" in " ".join(child.cmdline())]
    assert not left
