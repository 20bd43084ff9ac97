"""The command on several ranks: which of them work, which of them write, and how all end with one exit code."""

import atexit
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from regstream.device.garbage_collector import importing
from regstream.errors import ManifestError, RankError
from regstream.ranks.environment import RankId, launched, leave_launcher
from regstream_cli.error_reporting import classify, report_error
from regstream_cli.streams import MESSAGES, discard_stdout, show_cursor

if TYPE_CHECKING:
    from regstream.ranks.group import Ranks

#: Commands that several ranks work on. Others are rank 0's alone.
_SHARED = ("run", "evaluate", "bias")


@dataclass
class _Process:
    """This process among those of its launcher: none for a process on its own."""

    rank_id: RankId | None = None
    ranks: "Ranks | None" = None  # once it has joined them
    is_joining: bool = False


_PROCESS = _Process()


def begin(arguments: list[str]) -> None:
    """Let only rank 0 write. Others have no stdout, and messages with --debug only, which start with their number.

    Raises:
        ManifestError: the launcher's variables contradict one another.
    """
    _PROCESS.rank_id = launched()
    if _PROCESS.rank_id is not None and (rank := _PROCESS.rank_id.rank) > 0:
        MESSAGES.rank = rank
        discard_stdout()
        if "--debug" not in arguments:
            MESSAGES.silence()


def on_several_ranks() -> bool:
    """Whether a launcher has started this process as one of several that work on the command."""
    return _PROCESS.rank_id is not None and _PROCESS.rank_id.size > 1


def begin_command(name: str | None) -> None:
    """Let rank 0 go on alone with a command that is for one process.

    Raises:
        ManifestError: the command should not be started on several ranks.
        Exit: on the others, which have nothing to do.
    """
    if _PROCESS.rank_id is None or name in _SHARED:
        return
    if name == "tune":
        advice = "run `regstream tune` without a launcher, then `regstream run` on all ranks"
        raise ManifestError(f"settings are tuned by one process, and {_PROCESS.rank_id.size} were started; {advice}")
    if _PROCESS.rank_id.rank > 0:
        raise click.exceptions.Exit(0)
    leave_launcher()
    _PROCESS.rank_id = None


def join() -> "Ranks | None":
    """Join the other ranks, so that from here on an error of one reaches all; None for a process on its own."""
    if _PROCESS.rank_id is None:
        return None
    with importing():
        from regstream.ranks.group import current_ranks

    _PROCESS.is_joining = True
    _PROCESS.ranks = current_ranks()
    _PROCESS.is_joining = False
    _PROCESS.ranks.caller_reports = True
    _PROCESS.ranks.before_exit(_report_before_exit)
    return _PROCESS.ranks


def finish() -> None:
    """Wait for the other ranks at the end of a command.

    Raises:
        RankError: one has failed.
    """
    if _PROCESS.ranks is not None:
        _PROCESS.ranks.close()


def report_failure(error: BaseException, *, debug: bool) -> int:
    """Have all ranks end; report the error as `report_error` does, on one of them; return the exit code of all."""
    shared = error
    if _PROCESS.ranks is not None:
        for number in (signal.SIGINT, signal.SIGTERM):  # torchrun ends the others as soon as one has
            signal.signal(number, signal.SIG_IGN)
        own = classify(error)
        found = _PROCESS.ranks.fail(own)
        shared = error if found is own else found
        if _PROCESS.ranks.takes_report():
            MESSAGES.unsilence()
    elif _PROCESS.is_joining:
        MESSAGES.unsilence()  # whether another rank knows, nobody can say
    code = report_error(shared, debug=debug)
    if _PROCESS.ranks is not None:
        atexit.register(_end, code)
    return code


def _end(code: int) -> None:
    """End the process. An interpreter aborts as it ends while a thread is in a collective operation."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _report_before_exit(error: RankError | None) -> None:
    if sys.stderr.isatty():
        show_cursor()
    if error is not None:
        MESSAGES.unsilence()
        report_error(error, debug=False)
