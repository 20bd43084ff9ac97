"""The second signal ends the process at once, wherever it is; the first at the next event."""

import os
import signal
import subprocess
import sys
import time

import pytest

from regstream.errors import Interrupted
from regstream.events import Progressed, RunFinished, RunStarted, StepCommitted, StepStarted
from regstream_cli.interrupt import Interruption
from regstream_cli.watch import ProgressState

_STUCK = """
import time
from regstream.events import RunStarted
from regstream_cli.watching import watching
with watching() as listener:
    listener(RunStarted(done=0, total=2, output="out"))
    print("begun", flush=True)
    time.sleep(60)
"""


def _begun(watch: ProgressState) -> ProgressState:
    watch(RunStarted(done=0, total=1, output="out"))
    watch(StepStarted(index=0, name="stem", work=4))
    return watch


def _until_noticed(notices: list[str]) -> None:
    deadline = time.monotonic() + 10
    while not notices and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(environment: dict[str, str], number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STUCK],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.stderr.readline().endswith(b"once more stops at once\n")
        process.send_signal(number)
        assert process.wait(timeout=20) == 130
        assert b"what was committed is kept" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_answered_by_the_next_event(number: signal.Signals) -> None:
    watch, notices = _begun(ProgressState()), list[str]()
    before = signal.getsignal(number)
    with Interruption(watch, notices.append) as interruption:
        interruption(Progressed(doing="math: statistics"))
        os.kill(os.getpid(), number)
        _until_noticed(notices)
        with pytest.raises(Interrupted, match=r"^out: stopped in stem, 0 of 1 steps are committed; "):
            interruption(Progressed(doing="math: statistics"))
    assert signal.getsignal(number) is before


def test_what_is_all_but_done_is_finished() -> None:
    watch, notices = _begun(ProgressState()), list[str]()
    with Interruption(watch, notices.append) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        _until_noticed(notices)
        committed = StepCommitted(index=0, name="stem", seconds=1.0, peak_bytes=1, projected_bytes=1)
        for event in (committed, RunFinished(output="out", seconds=1.0, peak_bytes=1)):
            watch(event)
            interruption(event)


def test_before_the_first_step_a_signal_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption(ProgressState(), lambda text: None):
        signal.raise_signal(signal.SIGTERM)
