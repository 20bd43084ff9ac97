"""The second signal ends the process at once, wherever it is; the first at the next event."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from regstream.errors import Interrupted
from regstream.events import Progressed, RunFinished, RunStarted, StepCommitted, StepStarted
from regstream_cli.interrupt import InterruptHandler
from regstream_cli.progress_state import ProgressState

_STUCK = """
import signal
from regstream.events import RunStarted
from regstream_cli.observers import observe_progress
with observe_progress() as listener:
    listener(RunStarted(done=0, total=2, output="out"))
    print("begun", flush=True)
    while True:
        signal.pause()
"""


def _begun(state: ProgressState) -> ProgressState:
    state(RunStarted(done=0, total=1, output="out"))
    state(StepStarted(index=0, name="stem", work=4))
    return state


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
        assert process.stderr.readline().endswith(b"interrupt again to stop immediately\n")
        process.send_signal(number)
        assert process.wait(timeout=20) == 130
        assert b"committed steps are kept" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_answered_by_the_next_event(number: signal.Signals) -> None:
    state, noticed = _begun(ProgressState()), threading.Event()
    before = signal.getsignal(number)
    with InterruptHandler(state, lambda text: noticed.set()) as handler:
        handler(Progressed(doing="math: statistics"))
        os.kill(os.getpid(), number)
        assert noticed.wait(60)
        with pytest.raises(Interrupted, match=r"^out: stopped in stem, 0 of 1 steps are committed; "):
            handler(Progressed(doing="math: statistics"))
    assert signal.getsignal(number) is before


def test_what_is_all_but_done_is_finished() -> None:
    state, noticed = _begun(ProgressState()), threading.Event()
    with InterruptHandler(state, lambda text: noticed.set()) as handler:
        os.kill(os.getpid(), signal.SIGTERM)
        assert noticed.wait(60)
        committed = StepCommitted(index=0, name="stem", seconds=1.0, peak_bytes=1, projected_bytes=1)
        for event in (committed, RunFinished(output="out", seconds=1.0, peak_bytes=1)):
            state(event)
            handler(event)


def test_before_the_first_step_a_signal_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), InterruptHandler(ProgressState(), lambda text: None):
        signal.raise_signal(signal.SIGTERM)
