"""Ctrl-C and SIGTERM: the first signal stops a run at its next safe point, the second ends the process immediately."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

from regstream.errors import Interrupted
from regstream.events import Event, RunFinished
from regstream_cli.progress_state import ProgressState
from regstream_cli.streams import MESSAGES, show_cursor

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptHandler:
    """Handles signals while its context is open; as a listener, raises `Interrupted` at the event after a signal.

    Python runs signal handlers in the main thread between bytecodes, and one call into torch can take minutes. A thread
    therefore reads the signals from a pipe and responds immediately.
    """

    def __init__(self, state: ProgressState, show_message: Callable[[str], None]) -> None:
        self._state, self._show_message = state, show_message
        self._stop_requested = False

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer)
        # A signal that the parent process set to be ignored, as a shell does for background jobs, stays ignored.
        self._previous_handlers = {
            number: signal.signal(number, self._handle_signal)
            for number in _SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        threading.Thread(target=self._read_signals, args=(reader,), name="signals", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._writer)

    def __call__(self, event: Event) -> None:
        """Raise `Interrupted` after a signal, unless all steps are committed and only publishing remains."""
        if self._stop_requested and not isinstance(event, RunFinished) and self._state.done < self._state.total:
            raise Interrupted(self._state.stop_message())

    def _handle_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._state.total:  # no step has started, so there is no safe point to reach first
            raise KeyboardInterrupt

    def _read_signals(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] in _SIGNALS:
                self._request_stop()
        os.close(reader)

    def _request_stop(self) -> None:
        if self._stop_requested:
            if sys.stderr.isatty():
                show_cursor()
            if not MESSAGES.are_silent:
                text = f"{MESSAGES.prefix}interrupted: stopped immediately; committed steps are kept\n"
                os.write(2, text.encode())
            os._exit(Interrupted.exit_code)
        self._stop_requested = True
        if self._state.total:
            self._show_message("stopping at the next safe point; interrupt again to stop immediately")
