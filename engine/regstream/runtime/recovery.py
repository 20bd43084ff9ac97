"""Whether what was committed is there: shards by their size and digest. Hidden states have checksums of their own."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from regstream.errors import ResumeError
from regstream.plan.plan import Plan
from regstream.storage import digests
from regstream.storage.durable import TEMPORARY_SUFFIX
from regstream.storage.journal import CommittedStep


class Damage(NamedTuple):
    """The first committed step whose shard is not what was committed, and what is wrong with it."""

    step: int
    problem: str


def first_damaged(plan: Plan, committed: Sequence[CommittedStep], *, full: bool) -> Damage | None:
    """The first step that has to be done again; `full` reads every byte of the shards, not samples.

    Raises:
        ResumeError: the steps are not those of the plan.
    """
    _refuse_other_steps(plan, committed)
    found = [damage for shard in _by_shard(committed) if (damage := _first_of(plan, shard, full=full)) is not None]
    return min(found, default=None)


def _refuse_other_steps(plan: Plan, committed: Sequence[CommittedStep]) -> None:
    for index, step in enumerate(committed):
        planned = plan.steps[index] if index < len(plan.steps) else None
        if planned is None or (step.index, step.shard) != (index, planned.shard):
            raise ResumeError(
                f"{plan.workdir}: damaged: committed step {index} is not one of this merge; --restart starts anew"
            )


def _by_shard(committed: Sequence[CommittedStep]) -> Iterator[list[CommittedStep]]:
    shards: dict[str, list[CommittedStep]] = {}
    for step in committed:
        shards.setdefault(step.shard, []).append(step)
    yield from shards.values()


def _first_of(plan: Plan, steps: Sequence[CommittedStep], *, full: bool) -> Damage | None:
    """Of a shard's steps. The last tells of all bytes; only where it fails are those before it looked at."""
    if _problem(plan, steps[-1], full=full) is None:
        return None
    for step in steps:
        if (problem := _problem(plan, step, full=full)) is not None:
            return Damage(step.index, problem)
    return None


def _problem(plan: Plan, step: CommittedStep, *, full: bool) -> str | None:
    """What is wrong with a shard as far as a step wrote it."""
    part = plan.parts[step.index]
    places = [plan.output / step.shard, plan.state / (step.shard + TEMPORARY_SUFFIX)]
    if not part.is_last:  # a kill may have come between its name and its commit
        places.reverse()
    path = next(filter(os.path.lexists, places), None)
    if path is None:
        return f"{plan.output / step.shard}: missing"
    if path.is_symlink() or not path.is_file():
        return f"{path}: a link, or no file"
    size = path.stat().st_size
    # Behind what is committed of an unfinished shard may be what a kill left.
    if step.shard_bytes != part.end or size < part.end or (part.is_last and size > part.end):
        return f"{path}: {size:,} bytes, committed were {step.shard_bytes:,}"
    return None if _is_as_committed(path, step, full=full) else f"{path}: its bytes are not those that were committed"


def _is_as_committed(path: Path, step: CommittedStep, *, full: bool) -> bool:
    if full:
        return digests.hash_prefix(path, step.shard_bytes).sha256 == step.shard_sha256
    return digests.sample_sha256(path, step.shard_bytes) == step.shard_sampled
