"""Whether a plan fits into the memory and onto the disks it was given."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from regstream.errors import BudgetError
from regstream.plan.projection import generation_bytes
from regstream.units import format_bytes

if TYPE_CHECKING:
    from regstream.plan.plan import Plan

#: The share of free memory that is used where no budget was given.
_FREE_SHARE = 0.9
#: Journal, companions, and what a file system needs for itself.
_DISK_MARGIN = 1.02


def memory_budget(plan: "Plan") -> int:
    """The memory that the process may take in all: the manifest's, or what is free, less a margin."""
    budget = plan.manifest.resources.host_memory
    return plan.runtime_bytes + int(psutil.virtual_memory().available * _FREE_SHARE) if budget is None else budget


def check_memory(plan: "Plan") -> None:
    """Refuse a step that is over the budget.

    Raises:
        BudgetError: names the widest step, its terms, and what to change.
    """
    budget, widest = memory_budget(plan), plan.widest
    needed = plan.projected_bytes(widest)
    if needed > budget:
        terms = {"runtime": plan.runtime_bytes, **plan.projections[widest.index].terms}
        told = ", ".join(f"{name} {format_bytes(size)}" for name, size in terms.items())
        source = "host_memory" if plan.manifest.resources.host_memory is not None else "free memory, less a margin,"
        raise BudgetError(
            f"{widest.name} needs {format_bytes(needed)} ({told}), {source} is {format_bytes(budget)};"
            " lower batch_rows or max_length, or raise the budget"
        )


def disk_needs(plan: "Plan") -> Iterator[tuple[Path, int]]:
    """What a run still has to take where: the shards that do not stand yet, and two generations of hidden states."""
    missing = sum(plan.shard_bytes(step) for step in plan.steps if not (plan.output / step.shard).exists())
    yield plan.output, int(missing * _DISK_MARGIN)
    yield plan.workdir, int(2 * generation_bytes(plan) * _DISK_MARGIN)


def check_disk(plan: "Plan") -> None:
    """Refuse a run whose result and hidden states do not fit on their disks.

    Raises:
        BudgetError: names how much is missing where.
    """
    needed_on: dict[int, int] = {}
    for folder, needed in disk_needs(plan):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disk = place.stat().st_dev
        needed_on[disk] = needed_on.get(disk, 0) + needed
        free = shutil.disk_usage(place).free
        if needed_on[disk] > free:
            raise BudgetError(
                f"{folder}: {format_bytes(needed_on[disk])} are needed on its disk for the result and the hidden"
                f" states, {format_bytes(free)} are free; {format_bytes(needed_on[disk] - free)} are missing"
            )
