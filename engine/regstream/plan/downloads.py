"""Shards of the hub: which a step reads, how many lie on the disk at once, and what is fetched, once or again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.fetch import is_cached
from regstream.hub.repository import HubFile
from regstream.plan.job import Job
from regstream.plan.memory_terms import DISK_MARGIN, generation_bytes
from regstream.plan.step import Step

#: More than any disk has: shards go when no later step needs them, and never for want of room.
AMPLE = 1 << 62


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """What a run fetches from the hub, and the most disk it takes at once: result, hidden states, and shards."""

    fetched_bytes: int
    again_bytes: int  # of that, what had to make room in between
    held_bytes: int  # shards that are there now because a run of this merge brought them
    shards_bytes: int  # the most of these at once
    peak_bytes: int  # of everything
    peak_step: Step


def make_stages(job: Job, disk: int | None) -> tuple[StepShards, ...]:
    """The shards that each step reads, and what a bound on all disk leaves for shards meanwhile."""
    return tuple(
        StepShards(
            files=tuple(dict.fromkeys(_files(job, step))),
            allowance=None if disk is None else int(disk / DISK_MARGIN) - others,
        )
        for step, others in zip(job.steps, _others_bytes(job), strict=True)
    )


def supply(job: Job, disk: int | None) -> DownloadPlan:
    """Go through the stages as a run will."""
    stages, brought = make_stages(job, disk), job.prefetcher.brought()
    absent = {file for stage in stages for file in stage.files if not is_cached(file)}
    stock, fetched, most = EvictionPolicy(stages, brought), list[HubFile](), list[int]()

    def fetch(file: HubFile | None) -> None:
        if file is not None and file in absent:
            absent.difference_update([file])
            absent.update(stock.admit(file))
            fetched.append(file)
            most[-1] = max(most[-1], stock.held_bytes)

    for index, stage in enumerate(stages):
        absent.update(stock.begin(index))
        most.append(stock.held_bytes)
        for file in stage.files:
            fetch(file)
            fetch(stock.upcoming(lambda file: file not in absent) if absent else None)
    peaks = [held + others for held, others in zip(most, _others_bytes(job), strict=True)]
    return DownloadPlan(
        fetched_bytes=_total(fetched),
        again_bytes=_total(fetched) - _total(set(fetched)),
        held_bytes=_total(brought),
        shards_bytes=max(most),
        peak_bytes=int(max(peaks) * DISK_MARGIN),
        peak_step=job.steps[peaks.index(max(peaks))],
    )


def _files(job: Job, step: Step) -> Iterator[HubFile]:
    for specs in job.reads(step):
        for path in sorted({spec.file for spec in specs}):
            file = job.prefetcher.file(path)
            if file is not None:
                yield file


def _others_bytes(job: Job) -> list[int]:
    """The result as far as each step takes it, and two generations of hidden states."""
    hidden = 2 * generation_bytes(job)
    return [written + hidden for written in accumulate(map(job.written_bytes, job.steps))]


def _total(files: Iterable[HubFile]) -> int:
    return sum(file.size for file in files)
