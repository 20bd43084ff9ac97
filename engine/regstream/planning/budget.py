"""Checks that a plan fits into memory and onto the disks."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import psutil
import torch

from regstream.device.accelerator_kinds import accelerator_of
from regstream.errors import BudgetError, InputError
from regstream.hub.repository import cache_folder
from regstream.planning.disk_terms import DISK_MARGIN, hidden_state_bytes, result_bytes, scratch_bytes
from regstream.planning.downloads import DownloadPlan
from regstream.planning.memory_terms import MemorySpace, allocated_bytes
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.rank_share import neighbours_of
from regstream.storage.durable import TEMPORARY_SUFFIX
from regstream.units import format_bytes

#: The share of free memory that a run may use without a budget.
_FREE_SHARE = 0.9


def memory_budgets(merge: OpenedMerge, runtime_bytes: int) -> dict[MemorySpace, int]:
    """The most memory that a run may use: the manifest's budget, or what is free, less a margin; of the host's, its
    share among the ranks there."""
    resources = merge.manifest.resources
    free = runtime_bytes + int(psutil.virtual_memory().available * _FREE_SHARE / merge.rank_id.local_size)
    budgets: dict[MemorySpace, int] = {"host": free if resources.host_memory is None else resources.host_memory}
    if merge.device.type != "cpu":
        budgets["device"] = resources.device_memory or int(_free_device_bytes(merge.device) * _FREE_SHARE)
    return budgets


def _free_device_bytes(device: torch.device) -> int:
    accelerator = accelerator_of(device)
    assert accelerator is not None
    return accelerator.free_bytes()


def limit_device_memory(device: torch.device, budgets: Mapping[MemorySpace, int]) -> None:
    """Have allocations on an accelerator fail beyond the budget, which the driver takes its own memory of."""
    if (accelerator := accelerator_of(device)) is not None:
        accelerator.limit_memory(allocated_bytes(budgets["device"]))


def check_memory(merge: OpenedMerge, space: MemorySpace, step: str, terms: Mapping[str, int], budget: int) -> None:
    """Refuse a merge whose peak step is over a memory budget.

    Raises:
        BudgetError: names the step, its terms, and what to change.
    """
    needed = sum(terms.values())
    if needed <= budget:
        return
    has_budget = getattr(merge.manifest.resources, f"{space}_memory") is not None
    source = f"{space}_memory" if has_budget else f"free {space} memory, less a margin,"
    shown = ", ".join(f"{name} {format_bytes(size)}" for name, size in terms.items())
    advice = ["raise the budget" if has_budget else "free some memory"]
    if needed - terms.get("batch", 0) <= budget:
        advice = ["lower batch_rows or max_length", *advice]
    if merge.compute_dtype.itemsize > merge.exact_dtype.itemsize:
        advice.append(f'set compute_dtype = "{str(merge.exact_dtype).removeprefix("torch.")}"')
    if space == "device":
        advice.append('use device = "cpu"')
    raise BudgetError(
        f"{step} needs {format_bytes(needed)} of {space} memory ({shown}), {source} is {format_bytes(budget)};"
        f" {', or '.join(advice)}"
    )


def disk_needs(merge: OpenedMerge, shards: DownloadPlan) -> Iterator[tuple[Path, int]]:
    """What a rank still has to take where: its own shards, hidden states of two depths, and shards of the hub."""
    copies = 0
    if merge.rank_id.rank == 0:
        yield merge.output, int(sum(_missing_bytes(merge)) * DISK_MARGIN)
    else:
        copies = max(result_bytes(merge))
    arguments = merge.forward_memory.stored_argument_bytes * len(merge.method.prefixes())
    inputs = max(scratch_bytes(merge, step) for step in merge.steps)
    yield merge.workdir, int((copies + 2 * hidden_state_bytes(merge) + inputs + arguments) * DISK_MARGIN)
    if shards.peak_shard_bytes > shards.downloaded_bytes:
        yield cache_folder(), int((shards.peak_shard_bytes - shards.downloaded_bytes) * DISK_MARGIN)


def _missing_bytes(merge: OpenedMerge) -> Iterator[int]:
    """Of each shard, what is not there yet."""
    for shard, parts in groupby(merge.parts, key=lambda part: part.shard):
        places = (merge.output / shard, merge.state / (shard + TEMPORARY_SUFFIX))
        there = max(path.stat().st_size if path.is_file() else 0 for path in places)
        yield max(0, sum(part.num_bytes for part in parts) - there)


def needs_here(merge: OpenedMerge, shards: DownloadPlan) -> Iterator[tuple[Path, int]]:
    """What all ranks on this machine still have to take where; they share a cache of the hub's shards."""
    for rank in neighbours_of(merge):
        yield from disk_needs(rank, shards if rank.rank_id == merge.rank_id else replace(shards, peak_shard_bytes=0))


def free_disks(needs: Iterable[tuple[Path, int]]) -> Iterator[tuple[Path, int, int]]:
    """For each disk that needs are on: a folder on it, their sum, and the bytes free."""
    needed_on: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        existing = _nearest(folder)
        _, before = needed_on.get(existing.stat().st_dev, (folder, 0))
        needed_on[existing.stat().st_dev] = existing, before + needed
    for existing, needed in needed_on.values():
        yield existing, needed, shutil.disk_usage(existing).free


def check_writable(merge: OpenedMerge) -> None:
    """Refuse a run whose output or work folder is not writable.

    Raises:
        InputError: names the folder.
    """
    for what, folder in (("output", merge.output), ("work folder", merge.workdir)):
        existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
        if not existing.is_dir():
            kind = "a file" if existing.exists() else "a broken link"
            raise InputError(f"{existing}: {kind}, where the {what} {folder} needs a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            why = "is read-only" if os.statvfs(existing).f_flag & os.ST_RDONLY else "denies write permission"
            raise InputError(f"{folder}: cannot write the {what}: {existing} {why}; choose another folder")


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def check_disk(merge: OpenedMerge, shards: DownloadPlan) -> None:
    """Refuse a run that needs more disk space than its budget, or than is free: of all ranks on this machine.

    Raises:
        BudgetError: names the folder and the missing bytes.
    """
    budget, needs = merge.manifest.resources.disk, list(needs_here(merge, shards))
    if merge.rank_id.size > 1:
        _check_ranks(merge, shards, budget, sum(needed for _, needed in needs))
    elif budget is not None and shards.peak_disk_bytes > budget:
        raise BudgetError(
            f"{shards.peak_step.name} needs {format_bytes(shards.peak_disk_bytes)} of disk (of that at most"
            f" {format_bytes(shards.peak_shard_bytes)} for shards of the hub, the rest for result and hidden states),"
            f" the [resources] disk budget is {format_bytes(budget)}; raise it"
        )
    what, advice = "the result and the hidden states", ""
    if shards.download_bytes:
        what = "result, hidden states and shards of the hub"
        is_limited = budget is not None or merge.rank_id.size > 1
        advice = "" if is_limited else "; set [resources] disk to evict shards as the merge goes"
    check_free(free_disks(needs), what, advice)


def _check_ranks(merge: OpenedMerge, shards: DownloadPlan, budget: int | None, needed: int) -> None:
    if budget is None or needed <= budget:
        return
    advice = ", or run one rank, which evicts shards of the hub" if shards.download_bytes else ""
    raise BudgetError(
        f"{merge.rank_id.local_size} of {merge.rank_id.size} ranks need {format_bytes(needed)} of disk on one machine"
        f" (of that at most {format_bytes(shards.peak_shard_bytes)} for shards of the hub, which ranks do not evict,"
        " the rest for result and hidden states),"
        f" the [resources] disk budget is {format_bytes(budget)}; raise it{advice}"
    )


def check_free(disks: Iterable[tuple[Path, int, int]], what: str, advice: str = "") -> None:
    """Refuse needs that are larger than what is free on their disk, as `free_disks` gives them.

    Raises:
        BudgetError: names the folder and the missing bytes.
    """
    for folder, needed, free in disks:
        if needed > free:
            raise BudgetError(
                f"{folder}: {format_bytes(needed)} are needed on its disk for {what},"
                f" {format_bytes(free)} are free; {format_bytes(needed - free)} are missing{advice}"
            )
