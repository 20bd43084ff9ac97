"""On paper: merges on several GPUs, at rates that the GPU's maker publishes and at given rates of network and files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.scale import MODELS, manifest_of, plan_on
from regstream.planning.rank_costs import RankCosts
from regstream.planning.work import MOVED, flops_of
from regstream.units import format_bytes, format_rate, format_seconds, parse_rate

#: And how many are in a machine.
RANKS, IN_A_MACHINE = (1, 4, 8, 64), 8
NETWORKS = ("10Gbit", "400Gbit")
#: Of these kinds of work the factors are bfloat16 and the sums float32.
_NARROW = ("candidates' forward", "merged forward", "Gram matrices")


@dataclass(frozen=True, kw_only=True)
class GpuRates:
    """FLOP a second in bfloat16 and in float32, and bytes a second of its memory, of files read and of files written.

    Those of an H100 SXM by NVIDIA's data sheet, dense; files as a good NVMe disk reads, and as a core hashes.
    """

    narrow: float = 989e12
    wide: float = 67e12
    memory: float = 3.35e12
    reading: float = 3e9
    writing: float = 1.5e9

    def seconds(self, work: Mapping[str, float], *, read_bytes: int = 0, write_bytes: int = 0) -> float:
        """The time of some work and of what is read and written for it."""
        products = sum(flop / (self.narrow if kind in _NARROW else self.wide) for kind, flop in flops_of(work).items())
        moved = work.get(MOVED, 0.0) / self.memory
        return products + moved + read_bytes / self.reading + write_bytes / self.writing


def ranks() -> Iterator[str]:
    """Five candidates, 64 rows of 2,048 tokens each, on H100s of 80 GB, eight in a machine; on paper, nothing measured.

    Largest numbers of any rank. Times are those of its batches and solves at the rates of `GpuRates`, which no product
    reaches whole, and then of what it exchanges; how many times as fast as one GPU is in brackets.
    """
    times = " | ".join(f"time at {format_rate(parse_rate(network))}" for network in NETWORKS)
    yield f"| merge | GPUs | device memory | host memory | disk | sends or receives | {times} |"
    yield "|---|---|---|---|---|---|" + "---|" * len(NETWORKS)
    for model in MODELS:
        plan = plan_on(manifest_of(model), "80GiB")
        for size in RANKS:
            yield _line(model, plan.on_ranks(size, machines=-(-size // IN_A_MACHINE)))


def _line(model: str, costs: RankCosts) -> str:
    shares, size = costs.ranks, len(costs.ranks)
    traffic = [costs.traffic_of(rank) for rank in range(size)]
    cells = [
        model,
        str(size),
        format_bytes(max(plan.projected_bytes(step, "device") for plan in shares for step in plan.steps)),
        format_bytes(max(plan.projected_bytes(step) for plan in shares for step in plan.steps)),
        format_bytes(max(plan.disk_bytes for plan in shares)),
        format_bytes(max(max(found.sent, found.received) for found in traffic)),
        *(_time(costs, parse_rate(network)) for network in NETWORKS),
    ]
    return f"| {' | '.join(cells)} |"


def _time(costs: RankCosts, network: float) -> str:
    times = costs.times(network, GpuRates())
    assert times is not None
    factor = f" ({times.factor:.1f})" if len(costs.ranks) > 1 else ""
    return f"{format_seconds(times.together)}{factor}"
