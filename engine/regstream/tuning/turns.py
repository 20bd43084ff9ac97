"""The merges of a round, step by step in turns: what one has read of a step is in the page cache for the others."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from regstream.errors import NonFiniteError, SolveError
from regstream.events import Listener
from regstream.hub.eviction import StepShards
from regstream.planning.downloads import shards_by_step
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run_stepwise
from regstream.tuning.turns_progress import TurnsProgress


def merge_in_turns(plans: Mapping[str, Plan], folder: Path, listener: Listener) -> dict[str, str]:
    """Merge, or resume, all plans of one set of models; returns why some have no result, by the label of the plan.

    A merge frees its buffers after each step, so that memory does not grow with the number of merges.
    """
    failures: dict[str, str] = {}
    next_step: dict[str, int] = {}
    progress = TurnsProgress(plans, folder, listener)
    with ExitStack() as stack:
        first = next(iter(plans.values()))
        stack.enter_context(first.prefetcher.running(_step_shards(plans), listener))
        merges = {
            label: stack.enter_context(
                closing(run_stepwise(plan, takes_turns=True, listener=progress.listener_of(label)))
            )
            for label, plan in plans.items()
        }

        def advance(label: str) -> None:
            try:
                index = next(merges[label], None)
            except (SolveError, NonFiniteError) as error:
                failures[label], index = str(error), None
            next_step.pop(label, None)
            if index is not None:
                next_step[label] = index

        for label in plans:
            advance(label)  # as far as its first step
        progress.begin()
        while next_step:
            advance(min(next_step, key=lambda label: next_step[label]))  # the one that is furthest behind
    return failures


def _step_shards(plans: Mapping[str, Plan]) -> tuple[StepShards, ...]:
    """The shards of each step, and what a limit on all disk leaves for them beside the results of all merges."""
    first, *others = plans.values()
    disk = first.manifest.resources.disk
    if disk is not None:
        disk -= sum(other.disk_bytes for other in others)
    return shards_by_step(first, disk)
