"""Ctrl-C and SIGTERM: the first ends a run at its next safe point, the second ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from regstream.errors import Interrupted
from regstream.events import Event, RunFinished
from regstream_cli.watch import ProgressState

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"


class Interruption:
    """Listens to a run and to signals while its context is open; raises `Interrupted` from an event.

    Python runs signal handlers between bytecodes of the main thread, which may be minutes deep in a solve. Hence a
    thread reads the signals from a pipe: it can answer at once.
    """

    def __init__(self, watch: ProgressState, notice: Callable[[str], None]) -> None:
        self._watch, self._notice = watch, notice
        self._asked = False

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        # Who ignores a signal, as a shell does for what it runs in the background, has asked for that.
        self._before = {
            number: signal.signal(number, self._handle)
            for number in _SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        threading.Thread(target=self._answer, args=(reader,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)

    def __call__(self, event: Event) -> None:
        """Raise where a stop was asked for; once all steps are committed, publishing is sooner done than put off."""
        if self._asked and not isinstance(event, RunFinished) and self._watch.done < self._watch.total:
            raise Interrupted(self._watch.standing())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._watch.total:  # no step has begun: nothing to bring to a safe point
            raise KeyboardInterrupt

    def _answer(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] in _SIGNALS:
                self._count()
        os.close(reader)

    def _count(self) -> None:
        if self._asked:
            self._leave()
        self._asked = True
        if self._watch.total:
            self._notice("stopping at the next safe point; once more stops at once")

    def _leave(self) -> None:
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)
        os.write(2, b"regstream: interrupted: stopped at once; what was committed is kept\n")
        os._exit(Interrupted.exit_code)
