"""The regression residual of each candidate, ‖X(W − Wᵢ)ᵀ‖/‖XWᵢᵀ‖, by input group: what its linears have lost.

X are the calibration tokens on which the group was regressed. By the time W is known they are gone, and so is their
Gram matrix; a sketch of them is kept on disk, and the weights are sketched as well (`row_sketch`). With Ω and Ψ for
the two, ‖ΩX(W − Wᵢ)ᵀΨᵀ‖ estimates the norm: its relative error has a standard deviation of at most 5.4 %, where the
error has one direction, and of 5.4 %/√r over r directions. Sets of at most 257 tokens and weights with at most 521
out-features add none.

Shape suffixes: T tokens, S rows of a sketch, I in-features.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regstream.linalg.row_sketch import TokenSketch
from regstream.output.record_schema import CandidateResidual, ResidualRecord
from regstream.planning.step import Step
from regstream.runtime.weight_sketches import WeightSketches
from regstream.storage.scratch_tensors import ScratchTensors


class TokenSketches:
    """Sketches of the inputs of a block's groups, on disk from a candidate's forward pass until the block is solved."""

    def __init__(self, files: ScratchTensors, step: Step) -> None:
        self._files, self._numbers = files, {group: number for number, group in enumerate(step.regressed)}

    def write(self, candidate: str, sketches: Mapping[str, TokenSketch]) -> None:
        """Store a candidate's, by group."""
        for group, sketch in sketches.items():
            self._files.put(self._name(candidate, group), sketch.rows().cpu())

    def read(self, candidate: str, group: str) -> Tensor:
        """A candidate's sketch (S, I) of a group's inputs, on the CPU."""
        return self._files.get(self._name(candidate, group))

    def _name(self, candidate: str, group: str) -> str:
        return f"{self._numbers[group]}-sketch-{candidate}"


class GroupResiduals:
    """Sums over the linears of one input group."""

    def __init__(
        self, group: str, candidates: Sequence[str], tokens: TokenSketches, *, compute_dtype: torch.dtype
    ) -> None:
        """`compute_dtype` is that of forward passes."""
        self._group, self._candidates, self._tokens = group, candidates, tokens
        # Where bfloat16 is fastest it serves here too: rounding to 8 bits changes a norm by far less than the sketch.
        self._dtype = torch.bfloat16 if compute_dtype == torch.bfloat16 else torch.float32
        # By candidate the squared norms of X(W − Wᵢ)ᵀ, of X(mean − Wᵢ)ᵀ, and of XWᵢᵀ.
        self._squares = [[0.0, 0.0, 0.0] for _ in candidates]

    def add(self, weights: WeightSketches) -> None:
        """Add a linear."""
        for index, (squares, name) in enumerate(zip(self._squares, self._candidates, strict=True)):
            own_SI = weights.read(index)
            tokens_SI = self._tokens.read(name, self._group).to(own_SI.device, self._dtype)
            for number, weight_SI in enumerate((weights.merged - own_SI, weights.mean - own_SI, own_SI)):
                product_SS = tokens_SI @ weight_SI.to(self._dtype).T
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
