"""An evaluation and what each of its steps takes: ready to run, or to be refused."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from regstream.device import malloc
from regstream.device.process_memory import resident_bytes
from regstream.errors import BudgetError
from regstream.evaluation.estimate import estimated_seconds
from regstream.evaluation.layerwise_pass import LayerwisePass
from regstream.evaluation.projection import EvaluationProjection, project
from regstream.evaluation.rank_share import share_of
from regstream.evaluation.step import EvaluationStep, make_steps
from regstream.manifest.canonical import canonical_config
from regstream.planning.budget import check_free, check_memory, free_disks, memory_budgets
from regstream.planning.disk_terms import DISK_MARGIN
from regstream.planning.memory_terms import MemorySpace
from regstream.planning.plan import Plan
from regstream.planning.run_identity import Fingerprints, machine_identity
from regstream.planning.warmup import warm_up_forward
from regstream.storage.identity_differences import Identity
from regstream.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """The passes of an evaluation of a merge, one after another, and their costs."""

    merge: Plan
    passes: tuple[LayerwisePass, ...]  # with the rows of this rank
    whole: tuple[LayerwisePass, ...]  # with those of all ranks
    runtime_bytes: int  # the memory of the process before any work, its rows read and its libraries warm

    @classmethod
    def of(cls, merge: Plan, passes: Iterable[LayerwisePass]) -> Self:
        """Plan these passes, of all rows; measures what the process holds by now."""
        whole = tuple(passes)
        passes = share_of(whole, merge.rank_id)
        for layers in passes:
            warm_up_forward(layers.dtype, layers.model.device)
        malloc.trim()
        return cls(merge=merge, passes=passes, whole=whole, runtime_bytes=resident_bytes())

    @cached_property
    def steps(self) -> tuple[EvaluationStep, ...]:
        """All steps, in order."""
        return make_steps(self.passes)

    @cached_property
    def budgets(self) -> Mapping[MemorySpace, int]:
        """The most memory that the evaluation may use in each memory space, in bytes."""
        return memory_budgets(self.merge, self.runtime_bytes)

    @cached_property
    def projections(self) -> tuple[EvaluationProjection, ...]:
        """What each step takes in addition to the runtime, in the order of the steps."""
        available = {space: budget - self._idle_bytes(space) for space, budget in self.budgets.items()}
        return tuple(project(self.merge, step, available) for step in self.steps)

    def projected_bytes(self, step: EvaluationStep, space: MemorySpace = "host") -> int:
        """The peak memory of a step, in bytes: of the process, or of an accelerator (0 without one)."""
        return self._idle_bytes(space) + self.projections[step.index].memory_bytes(space)

    @cached_property
    def step_seconds(self) -> tuple[float, ...]:
        """The estimated time of each step."""
        assert self.merge.rates is not None  # it is about to run
        return tuple(estimated_seconds(self.merge.rates, step) for step in self.steps)

    @cached_property
    def identity(self) -> Identity:
        """Everything that decides the scores; an interrupted evaluation resumes only if none of it has changed."""
        return self.read_identity()

    def read_identity(self) -> Identity:
        """Compute the identity anew, to detect files that changed since."""
        files, rank_id = Fingerprints(), self.merge.rank_id
        fingerprints = {checkpoint: files.of(checkpoint) for layers in self.whole for checkpoint in layers.checkpoints}
        passes = {str(index): layers.identity(fingerprints) for index, layers in enumerate(self.whole)}
        architecture = canonical_config(self.merge.manifest)["architecture"]
        rank = {} if rank_id.size == 1 else {"rank": f"{rank_id.rank} of {rank_id.size}"}
        return {"passes": passes, "architecture": architecture, **rank, **machine_identity(self.merge.device)}

    @property
    def common_identity(self) -> Identity:
        """What of the identity all ranks have in common: their devices may differ."""
        return {name: part for name, part in self.identity.items() if name not in ("rank", "device")}

    @property
    def key(self) -> str:
        """A digest of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def disk_bytes(self) -> int:
        """The disk space that hidden states of two depths take, and what blocks depend on besides, in bytes."""
        sizes = (2 * layers.depth_bytes + layers.argument_bytes for layers in self.passes)
        return int(max(sizes, default=0) * DISK_MARGIN)

    def validate(self) -> None:
        """Refuse an evaluation that does not fit.

        Raises:
            BudgetError: a step needs more memory than its budget, or the hidden states more disk than is free.
        """
        for space, budget in self.budgets.items() if self.steps else ():
            peak = max(self.steps, key=lambda step: self.projected_bytes(step, space))
            terms = self.projections[peak.index].terms[space]
            check_memory(self.merge, space, peak.name, {"runtime": self._idle_bytes(space), **terms}, budget)
        self._check_disk()

    def _check_disk(self) -> None:
        needed, budget = self.disk_bytes, self.merge.manifest.resources.disk
        if budget is not None and needed > budget:
            raise BudgetError(
                f"hidden states of all models need {format_bytes(needed)} of disk, the [resources] disk budget is"
                f" {format_bytes(budget)}; raise it, or compare fewer models at once with --only"
            )
        advice = "; compare fewer models at once with --only, or set [resources] workdir"
        on_machine = needed * self.merge.rank_id.local_size  # its ranks have about as much each
        check_free(free_disks([(self.merge.workdir, on_machine)]), "hidden states", advice)

    def _idle_bytes(self, space: MemorySpace) -> int:
        return self.runtime_bytes if space == "host" else 0
