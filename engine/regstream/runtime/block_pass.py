"""Some input groups of a block, on their way through all candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regstream.methods.statistics import GroupStatistics
from regstream.planning.step import Step
from regstream.ranks.reduction import Reductions
from regstream.runtime.group_inputs import GroupInputs
from regstream.runtime.step_context import StepContext
from regstream.runtime.token_sketches import TokenSketches


@dataclass(frozen=True, kw_only=True)
class BlockPass:
    """What the phases of a pass share. Weights are keyed by the model's names."""

    step: Step
    context: StepContext
    statistics: Mapping[str, GroupStatistics]  # by input group
    owners: Mapping[str, int]  # the rank that solves each
    reductions: Reductions  # add up the statistics of all ranks
    reference: Mapping[str, Tensor]  # R, of the linears of these groups or of the whole block
    merged: Mapping[str, Tensor]  # the merged block as far as it is known, where a stream runs through it
    inputs: GroupInputs | None  # from which a stream through the merged block begins
    tokens: TokenSketches | None  # takes a sketch of each candidate's inputs, where the step has diagnostics
    is_first: bool
