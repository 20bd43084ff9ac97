"""Whether the results of a round fit on disk together."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from regstream.errors import BudgetError
from regstream.hub.repository import cache_folder
from regstream.planning.budget import check_free, disk_needs, free_disks
from regstream.planning.downloads import plan_downloads
from regstream.planning.plan import Plan
from regstream.units import format_bytes


def check_tuning_disk(folder: Path, trials: Sequence[Plan], evaluation_bytes: int) -> None:
    """Refuse the merges of a round, whose results are all there until they are evaluated together.

    Raises:
        BudgetError: they need more disk than the budget, or than is free.
    """
    needs = list(_needs(trials))
    results = sum(size for place, size in needs if place in {trial.output for trial in trials})
    first, *others = trials
    budget = first.manifest.resources.disk
    if budget is not None:
        of_others = sum(size for place, size in _needs(others) if place != cache_folder())
        merging = plan_downloads(first, budget - of_others).peak_disk_bytes + of_others
        needed = max(merging, results + evaluation_bytes)
        if needed > budget:
            raise BudgetError(
                f"the results of {len(trials)} settings, which are compared together, need {format_bytes(needed)} of"
                f" disk, the [resources] disk budget is {format_bytes(budget)}; raise it"
            )
    advice = "; free some space, or set [resources] workdir to a folder on a larger disk"
    needs_of_phases = {
        f"the results and hidden states of {len(trials)} settings": needs,
        f"the results of {len(trials)} settings and the hidden states of their evaluation": [
            (folder, results + evaluation_bytes)
        ],
    }
    for what, needed_at in needs_of_phases.items():
        check_free(free_disks(needed_at), what, advice)


def _needs(trials: Sequence[Plan]) -> Iterator[tuple[Path, int]]:
    """What merges that take turns still take where; they read the same shards of the hub."""
    for index, trial in enumerate(trials):
        for place, size in disk_needs(trial, trial.downloads):
            if index == 0 or place != cache_folder():
                yield place, size
