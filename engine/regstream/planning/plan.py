"""A merge and what each of its steps takes: ready to run, or to be refused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from regstream.device.accelerator_kinds import is_available
from regstream.hub.eviction import StepShards
from regstream.planning.architecture_summary import ArchitectureSummary, summarize_architecture
from regstream.planning.budget import (
    check_disk,
    check_memory,
    check_writable,
    disk_needs,
    free_disks,
    memory_budgets,
    needs_here,
)
from regstream.planning.downloads import UNLIMITED_DISK, DownloadPlan, plan_downloads, shards_by_step
from regstream.planning.evaluation_estimate import evaluation_seconds
from regstream.planning.memory_terms import Groups, MemorySpace
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.projection import Projection, project
from regstream.planning.rank_costs import RankCosts
from regstream.planning.rank_share import owned_parts
from regstream.planning.rates import Rates
from regstream.planning.step import Step
from regstream.planning.varying_settings import VaryingSetting, varying_settings
from regstream.planning.work import flops_of, step_work


@dataclass(frozen=True, kw_only=True)
class Plan(OpenedMerge):
    """A merge and its costs."""

    runtime_bytes: int  # the memory of the process before any work, its libraries warm
    available: Mapping[MemorySpace, int] | None = None  # beside the runtime, on the rank that has least; None: here
    common_passes: Sequence[tuple[Groups, ...]] | None = None  # of each step, on all ranks; None: as memory allows

    @cached_property
    def architecture(self) -> ArchitectureSummary:
        """What was found in the model, and what becomes of it."""
        return summarize_architecture(self.base.architecture, self.steps, self.manifest)

    @cached_property
    def varying_settings(self) -> tuple[VaryingSetting, ...]:
        """The settings that are not the same for all parameters, with what each step has of them."""
        return tuple(varying_settings(self.steps, self.manifest.candidate_names))

    @cached_property
    def projections(self) -> tuple[Projection, ...]:
        """What each step takes in addition to the runtime, in the order of the steps."""
        available = self.available or self.available_here
        # Ranks solve together: their passes are those that all batches allow.
        passes: Iterable[tuple[Groups, ...] | None]
        passes = self.common_passes or (None if self.whole is None else self.whole.passes(step) for step in self.steps)
        return tuple(project(self, step, available, found) for step, found in zip(self.steps, passes, strict=True))

    @property
    def available_here(self) -> dict[MemorySpace, int]:
        """What the budgets leave beside the runtime, in each memory space, in bytes."""
        return {space: budget - self.idle_bytes(space) for space, budget in self.budgets.items()}

    def passes(self, step: Step) -> tuple[tuple[str, ...], ...]:
        """The input groups of a block that are regressed together, pass by pass."""
        return self.projections[step.index].passes

    def projected_bytes(self, step: Step, space: MemorySpace = "host") -> int:
        """The peak memory of a step, in bytes: of the process, or of an accelerator (0 without one)."""
        return self.idle_bytes(space) + self.projections[step.index].memory_bytes(space)

    def projected(self, step: Step) -> Mapping[MemorySpace, int]:
        """The peak memory of a step in each memory space, in bytes."""
        return {space: self.projected_bytes(step, space) for space in self.budgets}

    def idle_bytes(self, space: MemorySpace) -> int:
        """The memory in use before any work, in bytes."""
        return self.runtime_bytes if space == "host" else 0

    @property
    def main_space(self) -> MemorySpace:
        """The memory that holds weights, sums and activations."""
        return "host" if self.device.type == "cpu" else "device"

    @property
    def peak_step(self) -> Step:
        """The step that needs the most of the main memory."""
        return max(self.steps, key=lambda step: self.projections[step.index].memory_bytes(self.main_space))

    @cached_property
    def budgets(self) -> Mapping[MemorySpace, int]:
        """The most memory that a run may use in each memory space, in bytes."""
        return memory_budgets(self, self.runtime_bytes)

    @cached_property
    def step_shards(self) -> tuple[StepShards, ...]:
        """The shards of the hub that each step reads."""
        return shards_by_step(self, self.manifest.resources.disk)

    @cached_property
    def downloads(self) -> DownloadPlan:
        """The bytes to download from the hub, and the peak of disk use."""
        return plan_downloads(self, self.manifest.resources.disk)

    @property
    def _downloads_here(self) -> DownloadPlan:
        """For all ranks on this machine; what all ranks read is more, where there are other machines."""
        return self.downloads if self.whole is None or self.rank_id.local_size == 1 else self.whole.downloads

    @property
    def ample_disk_bytes(self) -> int:
        """The disk space with which no shard is downloaded twice, in bytes."""
        return plan_downloads(self, UNLIMITED_DISK).peak_disk_bytes

    @property
    def disk_bytes(self) -> int:
        """The disk space still needed: for the rest of the result, hidden states, and shards of the hub, in bytes."""
        return sum(needed for _, needed in disk_needs(self, self.downloads))

    @property
    def disks(self) -> list[tuple[Path, int, int]]:
        """For each disk that the run writes to here: a folder on it, the bytes still needed, and the bytes free."""
        return list(free_disks(needs_here(self, self._downloads_here)))

    @property
    def read_bytes(self) -> int:
        """The bytes that all steps read."""
        return sum(projection.read_bytes for projection in self.projections)

    def work(self, step: Step) -> Mapping[str, float]:
        """What a step computes: FLOP by kind of work, and the bytes that other operations move."""
        passes = self.passes(step)
        return step_work(self, step, passes, owned_parts(self, step, passes))

    @property
    def flops(self) -> float:
        """The FLOP of all products."""
        return sum(flops for step in self.steps for flops in flops_of(self.work(step)).values())

    @cached_property
    def rates(self) -> Rates | None:
        """What this machine does a second, measured as it is asked for; None for a device that it lacks."""
        return Rates(self) if is_available(self.device) else None

    @cached_property
    def step_seconds(self) -> tuple[float, ...]:
        """The estimated time of each step, without downloads; empty for a device that this machine lacks."""
        if (rates := self.rates) is None:
            return ()
        return tuple(
            rates.seconds(self.work(step), read_bytes=needed.read_bytes, write_bytes=needed.write_bytes)
            for step, needed in zip(self.steps, self.projections, strict=True)
        )

    @cached_property
    def evaluation_seconds(self) -> float | None:
        """About how long `evaluate` will take; None where that is not known before the held-out rows are read."""
        return None if self.rates is None else evaluation_seconds(self, self.rates)

    def on_ranks(self, size: int, machines: int = 1) -> RankCosts:
        """What the merge takes on so many ranks, each as fast as this machine, evenly on so many machines."""
        return RankCosts.of(self, size, machines)

    @property
    def write_bytes(self) -> int:
        """The bytes that all steps write."""
        return sum(projection.write_bytes for projection in self.projections)

    def validate(self) -> None:
        """Refuse a plan that does not fit.

        Raises:
            BudgetError: a step needs more memory than its budget, or the run more disk than is free.
            InputError: the output or the work folder cannot be written to.
        """
        self.check_memory()
        check_writable(self)
        check_disk(self, self._downloads_here)

    def check_memory(self) -> None:
        """Refuse a plan that does not fit into memory.

        Raises:
            BudgetError: a step needs more than its budget.
        """
        for space, budget in self.budgets.items():
            peak = max(self.steps, key=lambda step: self.projected_bytes(step, space))
            terms = self.projections[peak.index].terms[space]
            check_memory(self, space, peak.name, {"runtime": self.idle_bytes(space), **terms}, budget)
