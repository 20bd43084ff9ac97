"""Checks the committed shards, by size and digest, before a run resumes. Hidden states have checksums of their own."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from regstream.errors import ResumeError
from regstream.planning.plan import Plan
from regstream.storage import digests
from regstream.storage.durable import TEMPORARY_SUFFIX
from regstream.storage.journal import CommittedStep


class Damage(NamedTuple):
    """The first committed step whose shard is missing or damaged, and the problem."""

    step: int
    problem: str


def first_damaged(plan: Plan, committed: Sequence[CommittedStep], *, full: bool) -> Damage | None:
    """The first step to run again; `full` hashes whole shards, not samples.

    Raises:
        ResumeError: the steps are not those of the plan.
    """
    _refuse_other_steps(plan, committed)
    damages = [_first_of(plan, shard, full=full) for shard in _by_shard(committed)]
    return min((damage for damage in damages if damage is not None), default=None)


def _refuse_other_steps(plan: Plan, committed: Sequence[CommittedStep]) -> None:
    for index, step in enumerate(committed):
        planned = plan.steps[index] if index < len(plan.steps) else None
        if planned is None or (step.index, step.shard) != (index, planned.shard):
            raise ResumeError(
                f"{plan.workdir}: damaged: committed step {index} is not one of this merge; --restart starts over"
            )


def _by_shard(committed: Sequence[CommittedStep]) -> Iterator[list[CommittedStep]]:
    shards: dict[str, list[CommittedStep]] = {}
    for step in committed:
        shards.setdefault(step.shard, []).append(step)
    yield from shards.values()


def _first_of(plan: Plan, steps: Sequence[CommittedStep], *, full: bool) -> Damage | None:
    """Of the steps of one shard. The last one's digest covers all bytes; earlier ones are checked only if it fails."""
    if _problem(plan, steps[-1], full=full) is None:
        return None
    for step in steps:
        if (problem := _problem(plan, step, full=full)) is not None:
            return Damage(step.index, problem)
    return None


def _problem(plan: Plan, step: CommittedStep, *, full: bool) -> str | None:
    """The problem of a shard up to the end of a step's part."""
    part = plan.parts[step.index]
    paths = [plan.output / step.shard, plan.state / (step.shard + TEMPORARY_SUFFIX)]
    if not part.is_last:  # a kill may have come between its rename and its commit
        paths.reverse()
    path = next(filter(os.path.lexists, paths), None)
    if path is None:
        return f"{plan.output / step.shard}: missing"
    if path.is_symlink() or not path.is_file():
        return f"{path}: a link or not a regular file"
    size = path.stat().st_size
    # A kill may have left bytes after the committed ones of an unfinished shard.
    if step.shard_bytes != part.end or size < part.end or (part.is_last and size > part.end):
        return f"{path}: has {size:,} bytes, the journal records {step.shard_bytes:,}"
    return (
        None
        if _is_as_committed(path, step, full=full)
        else f"{path}: damaged: its bytes differ from the committed ones"
    )


def _is_as_committed(path: Path, step: CommittedStep, *, full: bool) -> bool:
    if full:
        return digests.hash_prefix(path, step.shard_bytes).sha256 == step.shard_sha256
    return digests.sample_sha256(path, step.shard_bytes) == step.shard_sampled
