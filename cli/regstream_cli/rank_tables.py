"""What a merge takes on each of several ranks: a table and lines for people, and the record of `plan --json`."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from regstream.units import format_bytes, format_rate, format_seconds
from regstream_cli.tables import make_table, span

if TYPE_CHECKING:
    from rich.table import Table

    from regstream.planning.rank_costs import RankCosts


def rank_table(costs: "RankCosts") -> "Table":
    """A row per rank; consecutive ranks with equal numbers share a row."""
    on_device = ["device memory", "host memory"]
    memory = ["memory"] if costs.alone.main_space == "host" else on_device
    table = make_table("rank", *memory, "disk", "reads", "sends", "receives", "tokens")
    for cells, ranks in groupby(range(len(costs.ranks)), key=lambda rank: _cells(costs, rank)):
        table.add_row(span([f"rank {rank}" for rank in ranks]), *cells)
    return table


def rank_lines(costs: "RankCosts", network: float, *, fits: bool) -> Iterator[str]:
    """The time beside that of one rank, and what each rank may use."""
    if (times := costs.times(network)) is not None:
        alone, together = format_seconds(times.alone), format_seconds(times.together)
        yield f"takes about {alone} on one rank, {together} on {len(costs.ranks)}: {times.factor:.2f} times as fast"
        yield (
            f"where each rank is as fast as this machine is now, and sends and receives {format_rate(network)};"
            " counted in each step are the slowest batches of a rank, then the slowest solves, then what is exchanged"
        )
    first = costs.ranks[0]
    budgets = " and ".join(f"{format_bytes(budget)} of {space} memory" for space, budget in first.budgets.items())
    disk = format_bytes(sum(needed for _, needed, _ in first.disks))
    here = "the ranks" if first.rank_id.local_size == len(costs.ranks) else "those on rank 0's machine"
    yield f"each rank may use {budgets}; {here} need {disk} more disk space: {'fits' if fits else 'does not fit'}"


def rank_record(costs: "RankCosts", network: float) -> dict[str, Any]:
    """The same for programs."""
    times = costs.times(network)
    return {
        "network_bytes_per_second": network,
        "seconds": None if times is None else times.together,
        "seconds_alone": None if times is None else times.alone,
        "shares": [_share(costs, rank) for rank in range(len(costs.ranks))],
    }


def _share(costs: "RankCosts", rank: int) -> dict[str, Any]:
    plan, traffic = costs.ranks[rank], costs.traffic_of(rank)
    return {
        "rank": rank,
        "num_tokens": plan.num_tokens,
        "projected_bytes": max(map(plan.projected_bytes, plan.steps)),
        "device_projected_bytes": max(plan.projected_bytes(step, "device") for step in plan.steps),
        "disk_bytes": plan.disk_bytes,
        "read_bytes": plan.read_bytes,
        "sent_bytes": traffic.sent,
        "received_bytes": traffic.received,
    }


def _cells(costs: "RankCosts", rank: int) -> tuple[str, ...]:
    share = _share(costs, rank)
    on_device = ["device_projected_bytes"] * (costs.alone.main_space == "device")
    sizes = [*on_device, "projected_bytes", "disk_bytes", "read_bytes", "sent_bytes", "received_bytes"]
    return (*(format_bytes(share[name]) for name in sizes), f"{share['num_tokens']:,}")
