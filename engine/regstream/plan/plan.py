"""Everything a run needs to know, decided and opened."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from regstream import shards
from regstream.block import LayeredModel
from regstream.calibration import CalibrationSet
from regstream.checkpoint import Checkpoint
from regstream.manifest import Manifest
from regstream.methods import Method
from regstream.plan.budget import check_disk, check_memory, disk_needs, memory_budget
from regstream.plan.projection import Projection, project
from regstream.plan.step import Step


@dataclass(frozen=True, kw_only=True)
class PlannedCandidate:
    """A candidate, opened. `calibration` is None where the method needs none."""

    name: str
    weight: float
    checkpoint: Checkpoint
    calibration: CalibrationSet | None

    @property
    def rows(self) -> CalibrationSet:
        """Its calibration set."""
        assert self.calibration is not None
        return self.calibration


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A merge, ready to be run."""

    manifest: Manifest
    manifest_text: str
    method: Method
    base: Checkpoint
    candidates: tuple[PlannedCandidate, ...]
    model: LayeredModel
    steps: tuple[Step, ...]
    compute_dtype: torch.dtype  # of weights and activations while merging
    output_dtype: torch.dtype
    device: torch.device
    warnings: tuple[str, ...]
    runtime_bytes: int  # what the process held before any work

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return self.manifest.merge.output

    @property
    def workdir(self) -> Path:
        """The folder of the run's state."""
        return self.manifest.workdir

    @cached_property
    def projections(self) -> tuple[Projection, ...]:
        """What each step takes, in the order of the steps."""
        return tuple(project(self, step) for step in self.steps)

    def stored_shapes(self, step: Step) -> dict[str, tuple[int, ...]]:
        """A step's tensors under the names the result stores them by, which are the base's."""
        return {self.base.prefix + name: shape for name, shape in step.shapes.items()}

    def shard_bytes(self, step: Step) -> int:
        """The size of a step's shard."""
        return shards.shard_bytes(self.stored_shapes(step), self.output_dtype)

    def projected_bytes(self, step: Step) -> int:
        """The peak memory of the process during a step."""
        return self.runtime_bytes + self.projections[step.index].memory_bytes

    @property
    def widest(self) -> Step:
        """The step that needs the most memory."""
        return max(self.steps, key=lambda step: self.projections[step.index].memory_bytes)

    @property
    def budget_bytes(self) -> int:
        """The memory that the process may take in all."""
        return memory_budget(self)

    @property
    def disk_bytes(self) -> int:
        """The disk that is still to be taken: the rest of the result, and the hidden states."""
        return sum(needed for _, needed in disk_needs(self))

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
        check_memory(self)
        check_disk(self)
