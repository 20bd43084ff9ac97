"""What a merge takes on each of several ranks, and its time beside that of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from regstream.planning.network import Traffic, step_traffic
from regstream.planning.rank_share import shares_of
from regstream.planning.step import Step
from regstream.planning.work import SOLVES
from regstream.ranks.environment import RankId

if TYPE_CHECKING:
    from regstream.planning.plan import Plan


class StepRates(Protocol):
    """How fast a machine is: `rates.Rates`, or published figures."""

    def seconds(self, work: Mapping[str, float], *, read_bytes: int = 0, write_bytes: int = 0) -> float:
        """The time of some work and of what is read and written for it."""


@dataclass(frozen=True, kw_only=True)
class RankTimes:
    """Estimates in seconds: of one rank, and of several together."""

    alone: float
    together: float

    @property
    def factor(self) -> float:
        """How many times as fast several are."""
        return self.alone / self.together


@dataclass(frozen=True, kw_only=True)
class RankCosts:
    """A merge on several ranks. `alone` is its plan for one, `ranks` are those of each rank."""

    alone: "Plan"
    ranks: "tuple[Plan, ...]"

    @classmethod
    def of(cls, plan: "Plan", size: int, machines: int = 1) -> "RankCosts":
        """Of `size` ranks on so many machines like this one, as evenly as can be.

        Raises:
            ValueError: there are more machines than ranks, or none.
        """
        if not 1 <= machines <= size:
            raise ValueError(f"{size} ranks cannot be on {machines} machines")
        local_size = -(-size // machines)
        rank_ids = [
            RankId(
                rank=rank,
                size=size,
                local_rank=rank % local_size,
                local_size=min(local_size, size - rank // local_size * local_size),
            )
            for rank in range(size)
        ]
        return cls(alone=plan, ranks=tuple(shares_of(plan, rank_ids)))

    def check_memory(self) -> None:
        """Refuse what does not fit into the memory of some rank; as `Plan.check_memory` does."""
        for rank in self.ranks:
            rank.check_memory()

    @cached_property
    def traffic(self) -> tuple[tuple[Traffic, ...], ...]:
        """What each rank sends and receives, step by step."""
        first = self.ranks[0]
        return tuple(tuple(step_traffic(self.ranks, step, first.passes(step))) for step in first.steps)

    def traffic_of(self, rank: int) -> Traffic:
        """What a rank sends and receives in all steps."""
        return sum((step[rank] for step in self.traffic), Traffic())

    def times(self, network: float, rates: StepRates | None = None) -> RankTimes | None:
        """The time of one rank and of these, where `network` bytes a second leave and reach each of them.

        Without `rates` each is as fast as this machine is: None for a device that it lacks. Ranks wait for one another:
        a step takes the time of the slowest rank's batches, then of the slowest rank's solves, then of what the busiest
        rank exchanges, which is taken not to overlap with either.
        """
        if (rates := rates or self.alone.rates) is None:
            return None
        alone = sum(sum(_batches_and_solves(self.alone, step, rates)) for step in self.alone.steps)
        return RankTimes(alone=alone, together=sum(self._seconds(step, rates, network) for step in self.alone.steps))

    def _seconds(self, step: Step, rates: StepRates, network: float) -> float:
        times = [_batches_and_solves(rank, step, rates) for rank in self.ranks]
        exchanged = max(max(traffic.sent, traffic.received) for traffic in self.traffic[step.index])
        return max(batches for batches, _ in times) + max(solves for _, solves in times) + exchanged / network


def _batches_and_solves(plan: "Plan", step: Step, rates: StepRates) -> tuple[float, float]:
    """The time of solves, and before it of all else."""
    work, projected = plan.work(step), plan.projections[step.index]
    others = {kind: amount for kind, amount in work.items() if kind != SOLVES}
    batches = rates.seconds(others, read_bytes=projected.read_bytes, write_bytes=projected.write_bytes)
    return batches, rates.seconds({SOLVES: work.get(SOLVES, 0.0)})
