"""Several ranks on the cores of one machine, one thread each: how much sooner they merge than one does."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.memory import MERGE
from bench.process import TIMES
from bench.speed import SMALL

SIZE = 2
_EQUAL = replace(SMALL, blocks=4, rows=64, compute_dtype="float32")
WORKLOADS = (_EQUAL, replace(_EQUAL, candidates=5), replace(_EQUAL, rows=16, first_rows=160))


@dataclass(frozen=True)
class _Run:
    """How long a run took: as a process, in its steps, and by kind of work on the rank that had most of it."""

    seconds: float
    step_seconds: float
    work: Counter[str]


def rank_speed() -> Iterator[str]:
    """SmolLM2's width: the time of one process over that of two ranks, one thread each, in turns; and the rest."""
    for workload in WORKLOADS:
        manifest = workload.manifest(MERGE)
        pairs = [(_run(manifest, 1), _run(manifest, SIZE)) for _ in range(TIMES)]
        steps = [one.step_seconds / two.step_seconds for one, two in pairs]
        whole = [one.seconds / two.seconds for one, two in pairs]
        yield f"- {workload.name}: {median(steps):.2f} times as fast in its steps, {median(whole):.2f} as a process"
        one, two = pairs[steps.index(median(steps))]
        yield from _rest(one, two)


def _rest(one: _Run, two: _Run) -> Iterator[str]:
    """By kind of work: what one process takes, and what each of two would have to take for half the time."""
    for kind in sorted({*one.work, *two.work}, key=lambda kind: -one.work[kind]):
        yield f"  - {kind}: {one.work[kind]:.1f} s, and {two.work[kind]:.1f} s on the slower rank"


def _run(manifest: Path, size: int) -> _Run:
    command = [sys.executable, "-m", "regstream", "run", str(manifest), "--restart"]
    if size > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(size), "--master_port", "29533"]
        command = [sys.executable, *launcher, *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = time.perf_counter() - started
    steps = json.loads((manifest.parent / "merged" / "regstream.measured.json").read_text())["steps"]
    by_rank = [Counter[str]() for _ in range(size)]
    for step in steps:
        for total, cost in zip(by_rank, step.get("ranks", [step]), strict=True):
            total.update({kind: entry["seconds"] for kind, entry in cost["work"].items()})
    most = Counter({kind: max(total[kind] for total in by_rank) for total in by_rank for kind in total})
    return _Run(seconds, sum(step["seconds"] for step in steps), most)
