"""What the steps of one run share: plan, model, stores on disk, buffers, timing, and the listener."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from regstream.checkpoint.reader import TensorReader
from regstream.device import malloc
from regstream.device.accelerator_kinds import accelerator_of
from regstream.device.profiler import Profiler
from regstream.device.workspace import Workspace
from regstream.events import Listener, Progressed, RankProgress, RanksProgressed, StepStarted, Warned
from regstream.methods.statistics import GroupStatistics
from regstream.methods.stream import Prefix
from regstream.models.body_arguments import BodyArguments, load_arguments, store_arguments
from regstream.models.parameter import Parameter
from regstream.planning.budget import limit_device_memory
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from regstream.ranks.group import NO_OTHERS, Ranks
from regstream.runtime.load_ahead import load_ahead
from regstream.runtime.result_copies import ResultCopies
from regstream.storage.argument_store import ArgumentStore
from regstream.storage.hidden_states import HiddenStates
from regstream.storage.run_folder import GROUP_INPUTS
from regstream.storage.scratch_tensors import ScratchTensors
from regstream.storage.shards import Shards

_BLOCK, _NEXT_BLOCK, _REFERENCE, _PRIOR, _MERGED = "block", "next block", "reference", "prior", "merged block"
_BORROWED = "borrowed"


class StepContext:
    """Passed to every phase of a step. `committed` has size and digest of each shard as far as it is committed."""

    def __init__(
        self,
        plan: Plan,
        listener: Listener,
        committed: Mapping[str, tuple[int, str]] | None = None,
        ranks: Ranks = NO_OTHERS,
    ) -> None:
        self.plan = plan
        self.ranks = ranks
        self.model = plan.model
        self.shards = Shards(plan.output, committed or {}, plan.state)
        self.results = ResultCopies(plan, self.shards, ranks)
        self.warnings: list[str] = []  # of this step, which rank 0 says
        self.hidden: Mapping[Prefix, HiddenStates] = {
            prefix: HiddenStates(folder, plan.compute_dtype, plan.device)
            for prefix, folder in plan.hidden_folders.items()
        }
        self.scratch = ScratchTensors(plan.workdir / GROUP_INPUTS)
        self._arguments = {prefix: ArgumentStore(folder) for prefix, folder in plan.hidden_folders.items()}
        self.workspace = Workspace(plan.device)
        self.profiler = Profiler(plan.device)
        self._listener = listener
        self._previous: Step | None = None
        self._announced, self._done = ("", 0), 0
        self._reports: tuple[RankProgress, ...] = ()
        self._groups: object = None
        limit_device_memory(plan.device, plan.budgets)

    def announce(self, step: Step, work: int) -> None:
        """Say that a step begins, which is so many units of progress."""
        self._announced, self._done = (step.name, work), 0
        self._listener(StepStarted(index=step.index, name=step.name, work=work))

    def progress(self, doing: str, amount: int = 1) -> None:
        """Say that some of the step's work is done. The listener, or the end of another rank, may end the run here."""
        self.ranks.check()
        self._listener(Progressed(doing=doing, amount=amount))
        self._done += amount
        name, work = self._announced
        self.ranks.report(name, fraction=min(1.0, self._done / max(1, work)), doing=doing)
        if self.ranks.is_first and (reports := self.ranks.reports()) != self._reports:
            self._reports = reports
            self._listener(RanksProgressed(ranks=reports))

    def warn(self, message: str) -> None:
        """Say something a person should know that does not stop the work."""
        if self.ranks.is_first:
            self._listener(Warned(message=message))
        else:
            self.warnings.append(message)

    def reset_step(self, step: Step) -> None:
        """Free what a step does not use: weights of another kind of step, and sums where nothing is regressed."""
        if not step.regressed:
            self.workspace.release_all_but()
            self._groups = None
        elif self._previous is None or self._previous.kind != step.kind:
            self.workspace.release(_BLOCK, _NEXT_BLOCK, _REFERENCE, _MERGED)
        self._previous = step
        self.profiler.begin()
        malloc.trim()

    def release(self) -> None:
        """Free all buffers: before the next step other merges need the memory."""
        self.workspace.release_all_but()
        self._previous = self._groups = None
        malloc.trim()

    def release_regression(self) -> None:
        """Free what a regression held, where groups were solved in turn: the next block's begins with other buffers."""
        self.workspace.release_all_but(_BLOCK)
        self._groups = None

    def trim(self) -> None:
        """Return what is free to the operating system: after a candidate's batches, and after diagnostics."""
        malloc.trim()

    def load(self, step: Step, reader: TensorReader) -> dict[str, Tensor]:
        """Fill the buffers for a step's parameters from a checkpoint or a result."""
        return self._read(reader, step.parameters)

    def _read(self, reader: TensorReader, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
        weights = self._compute_buffers(_BLOCK, parameters)
        with self.profiler.region("reading", num_bytes=sum(weight.nbytes for weight in weights.values())):
            reader.read(weights)
        return weights

    def borrow(self, step: Step, prefix: Prefix, candidate: PlannedCandidate) -> dict[str, Tensor]:
        """The parameters of earlier steps that its forward reads too: the merged ones, or the candidate's own."""
        if not step.borrowed:
            return {}
        buffers = self._compute_buffers(f"{_BORROWED} {prefix}", step.borrowed)
        with self.profiler.region("reading", num_bytes=sum(buffer.nbytes for buffer in buffers.values())):
            if prefix == "own":
                candidate.checkpoint.read(buffers)
            for earlier in self.plan.steps[: step.index] if prefix == "merged" else ():
                if names := earlier.shapes.keys() & buffers.keys():
                    self.results.reader(earlier).read({name: buffers[name] for name in names})
        return buffers

    def load_each(self, step: Step, groups: Sequence[str]) -> Iterator[tuple[PlannedCandidate, dict[str, Tensor]]]:
        """Each candidate with batches here and its weights, the next ones read ahead while these are computed with.

        They are its whole block, or what is solved for of these groups where no stream runs through its block.
        """
        candidates = self.plan.calibrated
        parameters = step.parameters if self.plan.method.runs_candidates() else step.parameters_of(groups)
        names, accelerator = [parameter.name for parameter in parameters], accelerator_of(self.plan.device)
        if accelerator is not None and self.plan.projections[step.index].loads_ahead:
            for candidate in candidates:  # a download can be waited for, and interrupted, in this thread alone
                for reader, stored in candidate.checkpoint.readers_of(names):
                    reader.ensure_local(stored)
            buffers = [self._compute_buffers(slot, parameters) for slot in (_BLOCK, _NEXT_BLOCK)]
            loaded = self.profiler.timed_iter(load_ahead(candidates, buffers, accelerator))
            yield from zip(candidates, loaded, strict=True)
            return
        for index, candidate in enumerate(candidates):
            weights = self._read(candidate.checkpoint, parameters)
            for following in candidates[index + 1 : index + 2]:
                following.checkpoint.prefetch(names)  # from the disk, by the operating system
            yield candidate, weights

    def reference_buffers(self, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
        """Buffers for a reference of candidates' weights, in their dtype."""
        return self._compute_buffers(_REFERENCE, parameters)

    def prior_buffers(self, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
        """Buffers for a reference that is computed, float32."""
        return self._buffers(_PRIOR, parameters, torch.float32)

    def merged_block(self, step: Step) -> dict[str, Tensor]:
        """Buffers for the merged block, where a stream runs through it as far as it is known."""
        return self._compute_buffers(_MERGED, step.parameters)

    def statistics(self, step: Step, groups: Sequence[str]) -> dict[str, GroupStatistics]:
        """Empty statistics for each of some groups. Those of other groups, and the reference, are freed."""
        linears, norms = step.linear_groups(groups), step.norm_groups(groups)
        described = [*linears, *norms, *(step.method_of(group).sums_dtype() for group in groups)]
        if described != self._groups:
            # The reference is the same whole block for all groups where the candidates share a model.
            kept = (_BLOCK, _NEXT_BLOCK, _MERGED, *([_REFERENCE] if self.plan.shared is not None else ()))
            self.workspace.release_all_but(*kept)
            self._groups = described
        workspace = self.workspace
        return {group.name: step.method_of(group.name).statistics(group, workspace) for group in linears} | {
            norm.name: step.method_of(norm.name).norm_statistics(norm, workspace) for norm in norms
        }

    def read_hidden(self, prefix: Prefix, candidate: PlannedCandidate, step: Step) -> Iterator[Tensor]:
        """A candidate's tokens (T, D) that enter a step, by batch; the time until each arrives counts as reading."""
        counts = [batch.num_tokens for batch in candidate.batches(step.entered_stack)]
        return self.profiler.timed_iter(self.hidden[prefix].read(candidate.name, step.depth, counts))

    def records_arguments(self, step: Step, candidate: PlannedCandidate) -> bool:
        """Whether a stack's blocks need a record of what its body is called with: a decoder's read the encoder's
        output."""
        return step.stack > 0 or candidate.rows.records_arguments

    def store_arguments(
        self, step: Step, prefix: Prefix, candidate: PlannedCandidate, index: int, arguments: BodyArguments
    ) -> None:
        """Store what the body of a step's stack was called with for a batch."""
        store_arguments(self._arguments[prefix], candidate.name, index, arguments, stack=step.stack)

    def read_arguments(
        self, step: Step, prefix: Prefix, candidate: PlannedCandidate, index: int
    ) -> BodyArguments | None:
        """What that body was called with for a batch; None for rows whose blocks need no record of it."""
        if not self.records_arguments(step, candidate):
            return None
        return load_arguments(self._arguments[prefix], candidate.name, index, self.plan.device, stack=step.stack)

    def clear_hidden(self) -> None:
        """Remove all hidden states."""
        for hidden in self.hidden.values():
            hidden.clear()

    def has_hidden(self, depth: int) -> bool:
        """Whether the hidden states of all batches here are stored at a depth, as far as names of files tell."""
        return all(
            hidden.has(candidate.name, depth, len(candidate.rows.batches))
            for hidden in self.hidden.values()
            for candidate in self.plan.calibrated
        )

    def drop_before(self, step: Step) -> None:
        """Remove what no later step than this one reads: it is committed."""
        self.drop_hidden_before(step.depth + 1)
        self.results.drop(step)

    def drop_hidden_before(self, depth: int) -> None:
        """Remove hidden states that are less deep."""
        for hidden in self.hidden.values():
            hidden.drop_before(depth)

    def _compute_buffers(self, slot: str, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
        """Buffers in the compute dtype, by the model's names; blocks of one shape share them."""
        return self._buffers(slot, parameters, self.plan.compute_dtype)

    def _buffers(self, slot: str, parameters: Sequence[Parameter], dtype: torch.dtype) -> dict[str, Tensor]:
        shapes = {parameter.name: parameter.shape for parameter in parameters}
        return self.model.block_buffers(shapes, lambda wanted: self.workspace.buffers(slot, wanted, dtype))
