"""The regression residual of each candidate, ‖X(W − Wᵢ)ᵀ‖/‖XWᵢᵀ‖, by input group: what its linears have lost.

X are the calibration tokens on which the group was regressed. By the time W is known they are gone, and so is their
Gram matrix; a sketch of them is kept on disk, and the weights are sketched as well (`row_sketch`). With Ω and Ψ for
the two, ‖ΩX(W − Wᵢ)ᵀΨᵀ‖ estimates the norm: its relative error has a standard deviation of at most 5.4 %, where the
error has one direction, and of 5.4 %/√r over r directions. Sets of at most 257 tokens and weights with at most 521
out-features add none.

Shape suffixes: S rows of a sketch, I in-features.
"""

import math
from collections.abc import Sequence

import torch

from regstream.output.record_schema import CandidateResidual, ResidualRecord
from regstream.runtime.step_context import StepContext
from regstream.runtime.token_sketches import TokenSketches
from regstream.runtime.weight_sketches import WeightSketches

#: Slots of the workspace.
BUFFERS = ("sketched weights", "sketched weights as multiplied")


class GroupResiduals:
    """Sums over the linears of one input group."""

    def __init__(self, group: str, candidates: Sequence[str], *, context: StepContext, tokens: TokenSketches) -> None:
        """`candidates` by name; the context has the dtype of forward passes, and buffers."""
        self._group, self._candidates, self._tokens, self._workspace = group, candidates, tokens, context.workspace
        compute_dtype = context.plan.compute_dtype
        # Where bfloat16 is fastest it serves here too: rounding to 8 bits changes a norm by far less than the sketch.
        self._dtype = torch.bfloat16 if compute_dtype == torch.bfloat16 else torch.float32
        # By candidate the squared norms of X(W − Wᵢ)ᵀ, of X(mean − Wᵢ)ᵀ, and of XWᵢᵀ.
        self._squares = [[0.0, 0.0, 0.0] for _ in candidates]

    def add(self, weights: WeightSketches) -> None:
        """Add a linear."""
        for index, (squares, name) in enumerate(zip(self._squares, self._candidates, strict=True)):
            own_SI = weights.read(index)
            tokens_SI = self._tokens.read(name, self._group).to(own_SI.device, self._dtype)
            num_rows, width = own_SI.shape
            weight_SI = self._workspace.matrix(num_rows, width, torch.float32, BUFFERS[0])
            operand_SI = self._workspace.matrix(num_rows, width, self._dtype, BUFFERS[1])
            for number, subtracted_SI in enumerate((weights.merged, weights.mean, None)):
                if subtracted_SI is not None:
                    torch.sub(subtracted_SI, own_SI, out=weight_SI)
                product_SS = tokens_SI @ operand_SI.copy_(own_SI if subtracted_SI is None else weight_SI).T
                squares[number] += float(torch.linalg.matrix_norm(product_SS, dtype=torch.float32)) ** 2

    def record(self) -> ResidualRecord:
        """The residuals of all linears together."""
        named = zip(self._candidates, self._squares, strict=True)
        return ResidualRecord(group=self._group, candidates={name: _residual(*squares) for name, squares in named})


def _residual(merged: float, mean: float, output: float) -> CandidateResidual:
    if output == 0:
        return CandidateResidual(merged=None, mean=None)
    return CandidateResidual(
        merged=float(f"{math.sqrt(merged / output):.4g}"), mean=float(f"{math.sqrt(mean / output):.4g}")
    )
