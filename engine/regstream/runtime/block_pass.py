"""Some input groups of a block, on their way through all candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regstream.methods.statistics import GroupStatistics
from regstream.planning.step import Step
from regstream.runtime.group_inputs import GroupInputs
from regstream.runtime.residuals import TokenSketches
from regstream.runtime.step_context import StepContext


@dataclass(frozen=True, kw_only=True)
class BlockPass:
    """What the phases of a pass share. Weights are keyed by the model's names."""

    step: Step
    context: StepContext
    statistics: Mapping[str, GroupStatistics]  # by input group
    reference: Mapping[str, Tensor]  # R, of the linears of these groups or of the whole block
    merged: Mapping[str, Tensor]  # the merged block as far as it is known, where a stream runs through it
    inputs: GroupInputs | None  # from which a stream through the merged block begins
    tokens: TokenSketches | None  # takes a sketch of each candidate's inputs, where the step has diagnostics
    is_first: bool
