"""Downloads from the hub: which shards each step reads, the bytes to download, and the peak disk of the run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.fetch import is_cached
from regstream.hub.repository import HubFile
from regstream.planning.disk_terms import DISK_MARGIN, hidden_state_bytes, result_bytes, scratch_bytes
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.reads import reads
from regstream.planning.step import Step

#: More than any disk has: a shard is then evicted after its last use only.
UNLIMITED_DISK = 1 << 62


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """What a run downloads from the hub, and its peak disk: result, hidden states, and shards."""

    download_bytes: int
    diagnostics_bytes: int  # of that, shards that only diagnostics read
    repeated_bytes: int  # of that, shards that were evicted before their last use
    downloaded_bytes: int  # shards on disk that an earlier run of this merge downloaded
    peak_shard_bytes: int  # the most of shards at once
    peak_disk_bytes: int  # the most of result, hidden states and shards at once
    peak_step: Step


def shards_by_step(merge: OpenedMerge, disk: int | None) -> tuple[StepShards, ...]:
    """The shards that each step reads, and what a limit on all disk leaves for shards during it.

    Ranks evict nothing: others may share their cache, and read the same shards later.
    """
    disk = disk if merge.rank_id.size == 1 else None
    return tuple(
        StepShards(
            files=tuple(dict.fromkeys(_files(merge, step))),
            max_bytes=None if disk is None else int(disk / DISK_MARGIN) - other_bytes,
        )
        for step, other_bytes in zip(merge.steps, _other_bytes(merge), strict=True)
    )


def plan_downloads(merge: OpenedMerge, disk: int | None) -> DownloadPlan:
    """Simulate the downloads and evictions of a run."""
    steps, downloaded = shards_by_step(merge, disk), merge.prefetcher.downloaded()
    policy, fetched, shard_peaks = EvictionPolicy(steps, downloaded), list[HubFile](), list[int]()
    missing = {file for step in steps for file in step.files if not is_cached(file)}

    def fetch(file: HubFile | None) -> None:
        if file is not None and file in missing:
            missing.remove(file)
            missing.update(policy.admit(file))
            fetched.append(file)
            shard_peaks[-1] = max(shard_peaks[-1], policy.num_bytes)

    for index, step in enumerate(steps):
        missing.update(policy.begin_step(index))
        shard_peaks.append(policy.num_bytes)
        for file in step.files:
            fetch(file)
            fetch(policy.next_prefetch(lambda file: file not in missing))
    peaks = [shards + others for shards, others in zip(shard_peaks, _other_bytes(merge), strict=True)]
    return DownloadPlan(
        download_bytes=_total(fetched),
        diagnostics_bytes=_total(set(fetched) - _merged_files(merge)) if fetched else 0,
        repeated_bytes=_total(fetched) - _total(set(fetched)),
        downloaded_bytes=_total(downloaded),
        peak_shard_bytes=max(shard_peaks),
        peak_disk_bytes=int(max(peaks) * DISK_MARGIN) + 1,  # rounded up: as a limit, it leaves room for this peak
        peak_step=merge.steps[peaks.index(max(peaks))],
    )


def _files(merge: OpenedMerge, step: Step) -> Iterator[HubFile]:
    for specs in reads(merge, step):
        for path in sorted({spec.file for spec in specs}):
            file = merge.prefetcher.hub_file(path)
            if file is not None:
                yield file


def _merged_files(merge: OpenedMerge) -> set[HubFile]:
    """What is read for the result itself."""
    resources = merge.manifest.resources.model_copy(update={"diagnostics": False})
    plain = replace(merge, manifest=merge.manifest.model_copy(update={"resources": resources}))
    return {file for step in plain.steps for file in _files(plain, step)}


def _other_bytes(merge: OpenedMerge) -> list[int]:
    """The disk besides shards: the result up to each step, the hidden states of two depths, inputs of linears."""
    hidden = 2 * hidden_state_bytes(merge) + max(scratch_bytes(merge, step) for step in merge.steps)
    return [written + hidden for written in result_bytes(merge)]


def _total(files: Iterable[HubFile]) -> int:
    return sum(file.size for file in files)
