"""The command line in a process of its own that is forked from this one: its libraries are imported already.

A new interpreter spends some seconds on importing torch and transformers. A test that needs one, because it is about
imports, variables that are read at import, or a limit on the whole process, starts it itself.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from typing import IO

SECONDS = 120  # after which a command counts as stuck


def run(
    arguments: list[object], environment: Mapping[str, str], stdout: IO[bytes] | int | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, with its standard output to `stdout` where one is given."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        target = out if stdout is None else stdout
        with started(arguments, environment, stdout=target, stderr=err) as process:
            process.join(SECONDS)
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(
            [*map(str, arguments)], code_of(process), out.read().decode(), err.read().decode()
        )


@contextmanager
def started(
    arguments: list[object], environment: Mapping[str, str], *, stdout: IO[bytes] | int, stderr: IO[bytes] | int
) -> Iterator[ForkProcess]:
    """Start the command; what is left of it when the context ends is killed."""
    descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in (stdout, stderr)]
    process = multiprocessing.get_context("fork").Process(target=_on, args=(descriptors, arguments, environment))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def code_of(process: ForkProcess) -> int:
    """The exit code of a process that has ended, negative for a signal."""
    assert process.exitcode is not None
    return process.exitcode


def exit_code(arguments: list[object], environment: Mapping[str, str]) -> int:
    """Go on as the command, in a process that was just forked, up to where an interpreter would exit."""
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["regstream", *map(str, arguments)]
    warnings.resetwarnings()
    # What a shell starts in the background ignores Ctrl-C, and a person's command does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from regstream_cli.app import main

    try:
        main()
    except SystemExit as error:
        sys.stdout.flush()
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    sys.stdout.flush()
    return 0


def _on(descriptors: list[int], arguments: list[object], environment: Mapping[str, str]) -> None:
    for target, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, target)
    sys.exit(exit_code(arguments, environment))
