"""Inputs of a block's linears on disk, from which later passes over the block take it up.

Where groups are solved in turn, each pass runs the merged block up to the input of its group. A pass that begins where
an earlier one ended computes again only what several of them need, such as the residual stream. A candidate's own block
does not change from pass to pass: the first observes all of its inputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from regstream.methods.stream import Prefix
from regstream.models.resumed_block import OUTPUT, group_dependencies
from regstream.planning.opened_merge import PlannedCandidate
from regstream.planning.step import Step
from regstream.runtime.step_context import StepContext
from regstream.storage.scratch_tensors import ScratchTensors, ScratchWriter


class GroupInputs:
    """The store of one block. A target is a group, whose input is asked for, or the block's `OUTPUT`."""

    def __init__(
        self, files: ScratchTensors, dependencies: Mapping[str, frozenset[str]], regressed: Sequence[str]
    ) -> None:
        """`dependencies` are those of each target; passes go through the groups that are `regressed`, in order."""
        self._files, self._dependencies = files, dependencies
        self._numbers = {group: number for number, group in enumerate(regressed)}

    def is_stored(self, group: str) -> bool:
        """Whether a later pass begins from the group's input. One that follows from the block's own costs nothing."""
        is_needed = any(group in needed for needed in self._dependencies.values())
        return is_needed and bool(self._dependencies[group])

    def skipped(self, target: str) -> list[str]:
        """The groups whose linears a pass towards a target does not run."""
        return [group for group in self._dependencies if group not in (*self._dependencies[target], OUTPUT)]

    def later(self) -> list[str]:
        """The groups of all passes but the first."""
        return list(self._numbers)[1:]

    def read(self, candidate: PlannedCandidate, target: str) -> dict[str, Iterator[Tensor]]:
        """A candidate's stored inputs, (T, I) batch by batch, of the groups from which a pass begins."""
        needed = [group for group in self._dependencies[target] if self.is_stored(group)]
        return {group: self._files.read(self._name("merged", candidate, group)) for group in needed}

    def read_own(self, candidate: PlannedCandidate, group: str) -> Iterator[Tensor]:
        """Inputs of a group of the candidate's own block, (T, I) batch by batch, that the first pass stored."""
        return self._files.read(self._name("own", candidate, group))

    def write(self, candidate: PlannedCandidate, group: str) -> AbstractContextManager[ScratchWriter]:
        """Store a candidate's inputs of a group, where a later pass begins from them."""
        return self._files.write(self._name("merged", candidate, group))

    def write_own(self, candidate: PlannedCandidate, group: str) -> AbstractContextManager[ScratchWriter]:
        """Store inputs of a group of the candidate's own block."""
        return self._files.write(self._name("own", candidate, group))

    def _name(self, prefix: Prefix, candidate: PlannedCandidate, group: str) -> str:
        return f"{self._numbers[group]}-{prefix}-{candidate.name}"


def find_group_inputs(step: Step, context: StepContext, merged: Mapping[str, Tensor]) -> GroupInputs | None:
    """The store for a block; None where its passes begin from the block's own input."""
    if not (context.plan.stores_group_inputs and context.plan.calibrated):
        return None
    candidate = context.plan.calibrated[0]
    assert step.block is not None
    batch, hidden = candidate.batches(step.stack)[0], context.read_hidden("merged", candidate, step)
    arguments = context.read_arguments(step, "merged", candidate, 0)
    with context.model.bind_parameters({**merged, **context.borrow(step, "merged", candidate)}):
        hidden_BLD, groups = batch.unpack(next(hidden)), list(step.regressed)
        found = group_dependencies(context.model, step.block, hidden_BLD, batch, arguments, names=groups)
    missing = set(groups) - (found or {}).keys()
    return None if found is None or missing else GroupInputs(context.scratch, found, groups)
