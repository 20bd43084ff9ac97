"""Whether a plan fits into the memory and onto the disks it was given."""

import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

import psutil

from regstream.device import memory
from regstream.errors import BudgetError, InputError
from regstream.hub.repository import cache_folder
from regstream.plan.downloads import DownloadPlan
from regstream.plan.job import Job
from regstream.plan.memory_terms import DISK_MARGIN, MemorySpace, generation_bytes
from regstream.storage.durable import TEMPORARY_SUFFIX
from regstream.units import format_bytes

#: The share of free memory that is used where no budget was given.
_FREE_SHARE = 0.9


def memory_budgets(job: Job, runtime_bytes: int) -> dict[MemorySpace, int]:
    """The memory that may be taken in all, place by place: the manifest's word, or what is free, less a margin."""
    resources = job.manifest.resources
    free = runtime_bytes + int(psutil.virtual_memory().available * _FREE_SHARE)
    budgets: dict[MemorySpace, int] = {"host": free if resources.host_memory is None else resources.host_memory}
    if job.device.type != "cpu":
        asked = resources.device_memory
        budgets["device"] = int(memory.free_device_bytes(job.device) * _FREE_SHARE) if asked is None else asked
    return budgets


def check_memory(job: Job, place: MemorySpace, widest: str, terms: Mapping[str, int], budget: int) -> None:
    """Refuse a merge whose widest step is over the budget of a place.

    Raises:
        BudgetError: names the widest step, its terms, and what to change.
    """
    needed = sum(terms.values())
    if needed <= budget:
        return
    asked = getattr(job.manifest.resources, f"{place}_memory") is not None
    source = f"{place}_memory" if asked else f"free {place} memory, less a margin,"
    told = ", ".join(f"{name} {format_bytes(size)}" for name, size in terms.items())
    advice = ["raise the budget" if asked else "free some memory"]
    if needed - terms.get("batch", 0) <= budget:
        advice = ["lower batch_rows or max_length", *advice]
    if place == "device":
        advice.append('use device = "cpu"')
    raise BudgetError(
        f"{widest} needs {format_bytes(needed)} of {place} memory ({told}), {source} is {format_bytes(budget)};"
        f" {', or '.join(advice)}"
    )


def disk_needs(job: Job, shards: DownloadPlan) -> Iterator[tuple[Path, int]]:
    """What a run still has to take where: its own shards, two generations of hidden states, and shards of the hub."""
    yield job.output, int(sum(_missing_bytes(job)) * DISK_MARGIN)
    yield job.workdir, int(2 * generation_bytes(job) * DISK_MARGIN)
    if shards.peak_shard_bytes > shards.downloaded_bytes:
        yield cache_folder(), int((shards.peak_shard_bytes - shards.downloaded_bytes) * DISK_MARGIN)


def _missing_bytes(job: Job) -> Iterator[int]:
    """Of each shard, what is not there yet."""
    for shard, parts in groupby(job.parts, key=lambda part: part.shard):
        places = (job.output / shard, job.state / (shard + TEMPORARY_SUFFIX))
        there = max(path.stat().st_size if path.is_file() else 0 for path in places)
        yield max(0, sum(part.num_bytes for part in parts) - there)


def disks(job: Job, shards: DownloadPlan) -> Iterator[tuple[Path, int, int]]:
    """Each disk that a run writes to, by a folder on it: what the run still has to take, and what is free."""
    needed_on: dict[int, tuple[Path, int]] = {}
    for folder, needed in disk_needs(job, shards):
        place = _nearest(folder)
        _, before = needed_on.get(place.stat().st_dev, (folder, 0))
        needed_on[place.stat().st_dev] = place, before + needed
    for place, needed in needed_on.values():
        yield place, needed, shutil.disk_usage(place).free


def check_writable(job: Job) -> None:
    """Refuse a run that may not write where it has to.

    Raises:
        InputError: names the folder.
    """
    for what, folder in (("output", job.output), ("work folder", job.workdir)):
        place = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
        if not place.is_dir():
            found = "a file" if place.exists() else "a link that leads nowhere"
            raise InputError(f"{place}: {found}, where the {what} {folder} needs a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            why = "read-only" if os.statvfs(place).f_flag & os.ST_RDONLY else "without permission to write to it"
            raise InputError(f"{place}: {why}, and the {what} is {folder}; choose another")


def _nearest(folder: Path) -> Path:
    """The folder itself or the parent that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def check_disk(job: Job, shards: DownloadPlan) -> None:
    """Refuse a run that takes more disk than it may, or than there is.

    Raises:
        BudgetError: names how much is missing where.
    """
    asked = job.manifest.resources.disk
    if asked is not None and shards.peak_disk_bytes > asked:
        raise BudgetError(
            f"{shards.peak_step.name} needs {format_bytes(shards.peak_disk_bytes)} of disk (of that at most"
            f" {format_bytes(shards.peak_shard_bytes)} for shards of the hub, the rest for result and hidden states),"
            f" disk is {format_bytes(asked)}; raise it"
        )
    what = (
        "result, hidden states and shards of the hub" if shards.download_bytes else "the result and the hidden states"
    )
    advice = "; [resources] disk lets shards go" if asked is None and shards.download_bytes else ""
    for folder, needed, free in disks(job, shards):
        if needed > free:
            raise BudgetError(
                f"{folder}: {format_bytes(needed)} are needed on its disk for {what},"
                f" {format_bytes(free)} are free; {format_bytes(needed - free)} are missing{advice}"
            )
