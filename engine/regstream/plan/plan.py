"""A merge with what every step of it takes: ready to be run, or to be refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from regstream.hub.eviction import StepShards
from regstream.plan.budget import check_disk, check_memory, check_writable, disk_needs, disks, memory_budgets
from regstream.plan.downloads import UNLIMITED_DISK, DownloadPlan, plan_downloads, shards_by_step
from regstream.plan.job import Job
from regstream.plan.memory_terms import MemorySpace
from regstream.plan.projection import Projection, project
from regstream.plan.step import Step


@dataclass(frozen=True, kw_only=True)
class Plan(Job):
    """A job and its costs."""

    runtime_bytes: int  # what the process held before any work, its libraries warm

    @cached_property
    def projections(self) -> tuple[Projection, ...]:
        """What each step takes beyond the runtime, in the order of the steps."""
        beyond = {place: budget - self.held_bytes(place) for place, budget in self.budgets.items()}
        return tuple(project(self, step, beyond) for step in self.steps)

    def passes(self, step: Step) -> tuple[tuple[str, ...], ...]:
        """The input groups that go through a block together."""
        return self.projections[step.index].passes

    def projected_bytes(self, step: Step, place: MemorySpace = "host") -> int:
        """The peak memory of the process during a step; or of an accelerator, 0 where there is none."""
        return self.held_bytes(place) + self.projections[step.index].memory_bytes(place)

    def projected(self, step: Step) -> Mapping[MemorySpace, int]:
        """The peak memory during a step, place by place."""
        return {place: self.projected_bytes(step, place) for place in self.budgets}

    def held_bytes(self, place: MemorySpace) -> int:
        """What was held before any work."""
        return self.runtime_bytes if place == "host" else 0

    @property
    def main_place(self) -> MemorySpace:
        """Where weights, sums and activations are."""
        return "host" if self.device.type == "cpu" else "device"

    @property
    def widest(self) -> Step:
        """The step that needs the most memory where most is needed."""
        return max(self.steps, key=lambda step: self.projections[step.index].memory_bytes(self.main_place))

    @cached_property
    def budgets(self) -> Mapping[MemorySpace, int]:
        """The memory that may be taken in all, place by place."""
        return memory_budgets(self, self.runtime_bytes)

    @cached_property
    def step_shards(self) -> tuple[StepShards, ...]:
        """The shards of the hub that each step reads."""
        return shards_by_step(self, self.manifest.resources.disk)

    @cached_property
    def downloads(self) -> DownloadPlan:
        """What is fetched from the hub, and the most disk that is taken at once."""
        return plan_downloads(self, self.manifest.resources.disk)

    @property
    def ample_disk_bytes(self) -> int:
        """The disk with which nothing is fetched twice, though every shard goes when no later step needs it."""
        return plan_downloads(self, UNLIMITED_DISK).peak_disk_bytes

    @property
    def disk_bytes(self) -> int:
        """The disk that is still to be taken: the rest of the result, hidden states, and shards of the hub."""
        return sum(needed for _, needed in disk_needs(self, self.downloads))

    @property
    def disks(self) -> list[tuple[Path, int, int]]:
        """A folder on each disk that is written to, what is still to be taken there, and what is free now."""
        return list(disks(self, self.downloads))

    @property
    def read_bytes(self) -> int:
        """What all steps together read."""
        return sum(projection.read_bytes for projection in self.projections)

    @property
    def write_bytes(self) -> int:
        """What all steps together write."""
        return sum(projection.write_bytes for projection in self.projections)

    def validate(self) -> None:
        """Refuse what does not fit.

        Raises:
            BudgetError: a step needs more memory than its budget, or the run more disk than is free.
            InputError: the output or the work folder cannot be written to.
        """
        self.check_memory()
        check_writable(self)
        check_disk(self, self.downloads)

    def check_memory(self) -> None:
        """Refuse what does not fit into memory.

        Raises:
            BudgetError: a step needs more than its budget.
        """
        for place, budget in self.budgets.items():
            widest = max(self.steps, key=lambda step: self.projected_bytes(step, place))
            terms = self.projections[widest.index].terms[place]
            check_memory(self, place, widest.name, {"runtime": self.held_bytes(place), **terms}, budget)
