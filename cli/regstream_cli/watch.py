"""Follows a merge that another process runs, by what it leaves on disk."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from regstream.errors import Interrupted, ManifestError
from regstream_cli.interrupt import InterruptHandler
from regstream_cli.manifest_source import ManifestSource
from regstream_cli.progress_state import ProgressState
from regstream_cli.run_status import RunStatus, read_run_status
from regstream_cli.status_bars import StatusBars
from regstream_cli.status_lines import change_lines
from regstream_cli.streams import stdout_boundary, stdout_console

_POLL_SECONDS = 1.0


def wait_for_poll() -> None:
    """Wait until it is time to read the status again."""
    time.sleep(_POLL_SECONDS)


def status_reader(source: ManifestSource) -> Callable[[], RunStatus]:
    """What reads the status of a manifest's merge, as the manifest is then: a tuning writes settings into it.

    One that has become invalid, as while it is edited, is taken as it was. A pipe is read once.

    Raises:
        ManifestError: the manifest cannot be read, or is invalid.
    """
    manifest = source.read()

    def read() -> RunStatus:
        nonlocal manifest
        if source.can_change:
            with suppress(ManifestError):
                manifest = source.read()
        return read_run_status(manifest)

    return read


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the context.

    Raises:
        Interrupted: after one of them, which the merge itself does not notice.
    """
    try:
        with InterruptHandler(ProgressState(), lambda _: None):
            yield
    except KeyboardInterrupt as error:
        raise Interrupted("stopped watching; the merge itself is not affected") from error


def statuses(read: Callable[[], RunStatus], wait: Callable[[], None]) -> Iterator[RunStatus]:
    """The status and each different one after it, up to that of the finished merge; `wait` is called between readings.

    Raises what `read` raises.
    """
    last = None
    while last is None or last.state != "finished":
        if last is not None:
            wait()
        status = read()
        if status != last:
            yield status
        last = status


def show_changes(read: Callable[[], RunStatus], wait: Callable[[], None]) -> bool:
    """Show a merge until it is finished: bars on a terminal, else a line for each change. Whether bars were shown."""
    console = stdout_console()
    bars = StatusBars(console) if sys.stdout.isatty() and not console.is_dumb_terminal else None
    before = None
    with bars or nullcontext():
        for status in statuses(read, wait):
            with stdout_boundary():
                if bars is not None:
                    bars(status)
                else:
                    for line in change_lines(before, status):
                        console.print(line, soft_wrap=True)
            before = status
    return bars is not None
