"""A merge with what every step of it takes: ready to be run, or to be refused."""

from dataclasses import dataclass
from functools import cached_property

from regstream.plan.budget import check_disk, check_memory, disk_needs, disks, memory_budget
from regstream.plan.job import Job
from regstream.plan.projection import Projection, project
from regstream.plan.step import Step


@dataclass(frozen=True, kw_only=True)
class Plan(Job):
    """A job and its costs."""

    runtime_bytes: int  # what the process held before any work

    @cached_property
    def projections(self) -> tuple[Projection, ...]:
        """What each step takes beyond the runtime, in the order of the steps."""
        budget_bytes = self.budget_bytes - self.runtime_bytes
        return tuple(project(self, step, budget_bytes) for step in self.steps)

    def passes(self, step: Step) -> tuple[tuple[str, ...], ...]:
        """The input groups that go through a block together."""
        return self.projections[step.index].passes

    def projected_bytes(self, step: Step) -> int:
        """The peak memory of the process during a step."""
        return self.runtime_bytes + self.projections[step.index].memory_bytes

    @property
    def widest(self) -> Step:
        """The step that needs the most memory."""
        return max(self.steps, key=lambda step: self.projections[step.index].memory_bytes)

    @cached_property
    def budget_bytes(self) -> int:
        """The memory that the process may take in all."""
        return memory_budget(self, self.runtime_bytes)

    @property
    def disk_bytes(self) -> int:
        """The disk that is still to be taken: the rest of the result, and the hidden states."""
        return sum(needed for _, needed in disk_needs(self))

    @property
    def missing_disk_bytes(self) -> int:
        """How much of that is not free now."""
        return sum(max(0, needed - free) for _, needed, free in disks(self))

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
        """
        check_memory(self, self.runtime_bytes, self.widest.name, self.projections[self.widest.index])
        check_disk(self)
