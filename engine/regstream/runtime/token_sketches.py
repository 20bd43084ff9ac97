"""Sketches of the inputs of a block's groups, on disk from a candidate's forward pass until the block is solved.

Each rank sketches the tokens that it has; the owner of a group adds up what ranks have of it.

Shape suffixes: S rows of a sketch, I in-features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from regstream.linalg.row_sketch import TokenSketch, centred_rows, empty_sums
from regstream.planning.opened_merge import OpenedMerge, PlannedCandidate
from regstream.planning.step import Step
from regstream.ranks.group import Ranks
from regstream.storage.scratch_tensors import ScratchTensors


class TokenSketches:
    """The sketches of one block."""

    def __init__(self, files: ScratchTensors, step: Step) -> None:
        self._files = files
        self._numbers = {group: number for number, group in enumerate(step.regressed)}
        groups = step.linear_groups(step.regressed)
        self._widths = {group.name: group.in_features for group in groups}
        self._routed = {group.name for group in groups if group.is_routed}
        self._stacks = {group: step.stack_of(group) for group in step.regressed}

    def write(self, candidate: PlannedCandidate, sketches: Mapping[str, TokenSketch]) -> None:
        """Store the sums of the candidate's tokens that are here, by group."""
        for group, sketch in sketches.items():
            self._files.put(self._name(candidate.name, group), sketch.sums().cpu())
            if group in self._routed:  # as many tokens as turned out
                count = torch.tensor([float(sketch.next_token)])
                self._files.put(self._name(candidate.name, group, "count"), count)

    def complete(self, merge: OpenedMerge, owners: Mapping[str, int], ranks: Ranks) -> None:
        """Make the sketches of all tokens, of each of some groups on the rank that owns it; every rank calls this."""
        alone = ((0,),) * len(merge.candidates)
        for group, owner in owners.items():
            for candidate, holders in zip(merge.candidates, merge.holders or alone, strict=True):
                name, sums_SI = self._name(candidate.name, group), empty_sums(self._widths[group]).zero_()
                counted = self._name(candidate.name, group, "count")
                count = torch.full((1,), float(candidate.num_tokens(self._stacks[group])))
                for holder in holders:
                    part_SI = self._files.get(name) if ranks.rank == holder else empty_sums(self._widths[group])
                    ranks.move(part_SI, holder, owner)
                    sums_SI += part_SI
                    if group in self._routed:  # all of them are on one rank
                        count = self._files.get(counted) if ranks.rank == holder else count
                        ranks.move(count, holder, owner)
                if ranks.rank == owner:
                    self._files.put(name, centred_rows(sums_SI, int(count)))

    def read(self, candidate: str, group: str) -> Tensor:
        """A candidate's sketch (S, I) of a group's inputs, on the CPU."""
        return self._files.get(self._name(candidate, group))

    def _name(self, candidate: str, group: str, what: str = "sketch") -> str:
        return f"{self._numbers[group]}-{what}-{candidate}"
