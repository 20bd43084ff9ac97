"""Whether a plan fits into the memory and onto the disks it was given."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from regstream.errors import BudgetError
from regstream.plan.job import Job
from regstream.plan.projection import Projection, generation_bytes
from regstream.units import format_bytes

#: The share of free memory that is used where no budget was given.
_FREE_SHARE = 0.9
#: Journal, companions, and what a file system needs for itself.
_DISK_MARGIN = 1.02


def memory_budget(job: Job, runtime_bytes: int) -> int:
    """The memory that the process may take in all: the manifest's, or what is free, less a margin."""
    budget = job.manifest.resources.host_memory
    return runtime_bytes + int(psutil.virtual_memory().available * _FREE_SHARE) if budget is None else budget


def check_memory(job: Job, runtime_bytes: int, widest: str, projection: Projection) -> None:
    """Refuse a merge whose widest step is over the budget.

    Raises:
        BudgetError: names the widest step, its terms, and what to change.
    """
    budget, needed = memory_budget(job, runtime_bytes), runtime_bytes + projection.memory_bytes
    if needed > budget:
        terms = {"runtime": runtime_bytes, **projection.terms}
        told = ", ".join(f"{name} {format_bytes(size)}" for name, size in terms.items())
        source = "host_memory" if job.manifest.resources.host_memory is not None else "free memory, less a margin,"
        raise BudgetError(
            f"{widest} needs {format_bytes(needed)} ({told}), {source} is {format_bytes(budget)};"
            " lower batch_rows or max_length, or raise the budget"
        )


def disk_needs(job: Job) -> Iterator[tuple[Path, int]]:
    """What a run still has to take where: the shards that do not stand yet, and two generations of hidden states."""
    missing = sum(job.shard_bytes(step) for step in job.steps if not (job.output / step.shard).exists())
    yield job.output, int(missing * _DISK_MARGIN)
    yield job.workdir, int(2 * generation_bytes(job) * _DISK_MARGIN)


def disks(job: Job) -> Iterator[tuple[Path, int, int]]:
    """Each disk that a run writes to, by a folder on it: what the run still has to take, and what is free."""
    needed_on: dict[int, tuple[Path, int]] = {}
    for folder, needed in disk_needs(job):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        _, before = needed_on.get(place.stat().st_dev, (folder, 0))
        needed_on[place.stat().st_dev] = place, before + needed
    for place, needed in needed_on.values():
        yield place, needed, shutil.disk_usage(place).free


def check_disk(job: Job) -> None:
    """Refuse a run whose result and hidden states do not fit on their disks.

    Raises:
        BudgetError: names how much is missing where.
    """
    for folder, needed, free in disks(job):
        if needed > free:
            raise BudgetError(
                f"{folder}: {format_bytes(needed)} are needed on its disk for the result and the hidden states,"
                f" {format_bytes(free)} are free; {format_bytes(needed - free)} are missing"
            )
