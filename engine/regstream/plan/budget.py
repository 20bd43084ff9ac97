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


def check_disk(job: Job) -> None:
    """Refuse a run whose result and hidden states do not fit on their disks.

    Raises:
        BudgetError: names how much is missing where.
    """
    needed_on: dict[int, int] = {}
    for folder, needed in disk_needs(job):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disk = place.stat().st_dev
        needed_on[disk] = needed_on.get(disk, 0) + needed
        free = shutil.disk_usage(place).free
        if needed_on[disk] > free:
            raise BudgetError(
                f"{folder}: {format_bytes(needed_on[disk])} are needed on its disk for the result and the hidden"
                f" states, {format_bytes(free)} are free; {format_bytes(needed_on[disk] - free)} are missing"
            )
