"""All parts one after another, each within its time; the table is printed as it grows, and kept in a file."""

import json
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from bench.workload import ROOT, WORK
from gpu import full_width
from gpu.beside_cpu import beside_cpu
from gpu.child import Child, Deadline, use_new_interpreters
from gpu.eigendecomposition import eigendecomposition
from gpu.machine import Machine, describe
from gpu.marked_tests import marked_tests
from gpu.report import CheckFailed, Row, heading, is_ok
from gpu.resume import resume
from gpu.setting import CARD, Setting
from regstream.planning.memory_terms import CONTEXT_BYTES
from regstream.units import format_bytes

Part = Callable[[Setting, Machine, Deadline], Iterator[Row]]
#: Seconds that each may take: together with two tries to describe the machine, eight minutes.
PARTS: dict[str, tuple[Part, float]] = {
    "beside the CPU": (beside_cpu, 40),
    "narrow": (full_width.narrow, 90),
    "eigendecomposition": (eigendecomposition, 20),
    "resume": (resume, 65),
    "wide": (full_width.wide, 125),
    "tests": (marked_tests, 80),
}
_DESCRIBE_SECONDS = 30
_RESULTS = ROOT / "tools" / "bench" / "results"


class NoDevice(Exception):
    """This machine has no such device."""


def check(setting: Setting) -> int:
    """Print the table; 0 if every promise was kept, else 1.

    Raises:
        NoDevice: there is none.
        CheckFailed: it does not compute.
    """
    machine = _machine(setting.device)
    rows, lines = [], heading(machine)
    print("\n".join(lines), flush=True)
    for row in _rows(setting, machine):
        print(row, flush=True)
        rows.append(row)
    path = _file(setting, machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, *map(str, rows)]) + "\n")
    shutil.rmtree(full_width.FOLDER, ignore_errors=True)
    print(f"\n{path} has this table; {WORK / 'checkpoints'}, random checkpoints for the next run.", file=sys.stderr)
    return 0 if is_ok(rows) else 1


def _machine(device: str) -> Machine:
    with suppress(CheckFailed, NoDevice):
        return _described(device)
    use_new_interpreters()  # an import may have started CUDA, which then seems broken, or not there
    return _described(device)


def _described(device: str) -> Machine:
    said = Child(device, describe, device).wait(Deadline(_DESCRIBE_SECONDS))
    if (told := json.loads(said.splitlines()[-1])) is None:
        raise NoDevice(f"torch finds no {device} device; --dry-run goes through everything on a simulated one")
    return Machine(**told)


def _rows(setting: Setting, machine: Machine) -> Iterator[Row]:
    if machine.context_bytes is not None:
        yield Row(
            "CUDA context, and what other programs hold",
            format_bytes(machine.context_bytes),
            f"at most {format_bytes(CONTEXT_BYTES)}",
            ok=machine.context_bytes <= CONTEXT_BYTES,
        )
    for name, (part, seconds) in PARTS.items():
        deadline = Deadline(seconds)
        try:
            yield from part(setting, machine, deadline)
        except CheckFailed as failure:
            yield Row(name, str(failure), "", ok=False)
        except Exception as error:
            traceback.print_exc()
            yield Row(name, f"{type(error).__name__}: {error}", "", ok=False)
        yield Row(f"{name}: all of it", f"{deadline.past:.0f} s", f"at most {seconds:.0f} s")


def _file(setting: Setting, machine: Machine) -> Path:
    card = re.sub(r"[^a-z0-9]+", "-", machine.card.lower()).strip("-")
    folder = _RESULTS if setting is CARD else WORK
    return folder / f"{datetime.now(UTC):%Y-%m-%d}-gpu-{card}.md"
