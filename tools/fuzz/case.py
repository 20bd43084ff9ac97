"""A case: inputs damaged by a seed, a command run on them in a process of its own, and what is wrong with its end."""

import hashlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzz.kinds import KINDS
from regstream_cli.app import cli

SECONDS = 10
MEMORY_BYTES = 3 << 30
_MANIFEST = 2  # the exit code of which there may be a line for each problem


@dataclass(frozen=True)
class Case:
    """A kind and a seed, which decide it."""

    kind: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    case: Case
    exit_code: int
    problems: tuple[str, ...]
    seconds: float

    @property
    def is_late(self) -> bool:
        """Whether it took too long."""
        return self.seconds > SECONDS


class Running:
    """A case under way, in a folder of its own below `folder`."""

    def __init__(self, case: Case, inputs: Path, folder: Path) -> None:
        self.case = case
        self._kind = KINDS[case.kind]
        self._folder = folder
        random = Random(f"{case.kind} {case.seed}")
        shutil.copytree(inputs / self._kind.start, folder, symlinks=True)
        if self._kind.prepare is not None:
            self._kind.prepare(random, folder)
        damaged = folder / random.choice(self._kind.files)
        if damaged.name == "journal.jsonl":
            damaged = next(folder.rglob(damaged.name))
        random.choice(self._kind.mutations)(random, damaged)
        self.command = random.choice(self._kind.commands)
        self._before = dict(_digests(folder))
        self._begun = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _run(folder, self.command)

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() - self._begun > SECONDS

    def outcome(self, status: int, usage: resource.struct_rusage) -> Outcome:
        """What is to be said of it, now that it ended."""
        exit_code = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - self._begun
        problems = tuple(self._problems(exit_code, seconds, usage.ru_maxrss * 1024))
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._folder.with_suffix(".out"), ignore_errors=True)
        return Outcome(self.case, exit_code, problems, seconds)

    def _problems(self, exit_code: int, seconds: float, peak_bytes: int) -> Iterator[str]:
        stderr = (self._folder.with_suffix(".out") / "stderr").read_text(errors="replace")
        lines = [line for line in stderr.splitlines() if line.startswith(("regstream: error", "regstream: unexpected"))]
        last = stderr.strip().splitlines()[-1][:200] if stderr.strip() else ""
        if seconds > SECONDS:
            yield f"more than {SECONDS} s"
        elif exit_code == 1 or exit_code < 0 or exit_code > 6:
            yield f"exit {exit_code}: {last}"
        if "Traceback" in stderr or "panicked" in stderr:
            yield f"a traceback: {last}"
        if peak_bytes > MEMORY_BYTES:
            yield f"{peak_bytes >> 20:,} MiB"
        if exit_code > 0 and exit_code != _MANIFEST and len(lines) != 1 and self.command[0] != "verify":
            yield f"{len(lines)} lines of error"
        after = dict(_digests(self._folder))
        changed = [name for name, digest in self._before.items() if after.get(name) != digest]
        if changed:
            yield f"inputs changed: {', '.join(changed)}"


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Of every input; a result and what is beside it may change."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and not name.startswith(("merged", ".cache")):
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _run(folder: Path, command: Sequence[str]) -> None:
    """Be the command line in this process; does not return."""
    code = 99
    try:
        os.setpgid(0, 0)  # what it starts ends with it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = folder.with_suffix(".out")
        out.mkdir()
        os.chdir(folder)
        os.environ |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / ".cache")}
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(out / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
        limit = 16 << 30  # of addresses, of which far more are taken than memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        cli(list(command), prog_name="regstream")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 98
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
