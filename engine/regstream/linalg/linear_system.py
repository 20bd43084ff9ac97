"""What a solver is given, D A = B, and what is asked of one.

Shape suffixes: I in-features, N combinations of right-hand sides, O out-features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from regstream.linalg.iterated_tikhonov import MeanRows
from regstream.linalg.packed_symmetric import PackedSymmetric
from regstream.linalg.regression_memory import LinearShapes
from regstream.linalg.solve_report import SolveReport

_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class LinearSystem:
    """A, before α is applied to it, and B for each linear, (O, I), which the solution overwrites."""

    group: str
    matrix: PackedSymmetric
    rhs_OI: Mapping[str, Tensor]
    num_tokens: int
    mean: MeanRows

    @property
    def width(self) -> int:
        """I."""
        return self.matrix.width

    def random_probes(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear's right-hand sides (or solutions), behind a few random combinations of its rows, (N, O)."""
        for name, rhs_OI in self.rhs_OI.items():
            generator = torch.Generator().manual_seed(rhs_OI.shape[0])
            yield name, torch.randn(_PROBES, rhs_OI.shape[0], generator=generator).to(rhs_OI), rhs_OI


class Solver(Protocol):
    """A way to solve; the sums are formed in its dtype, and with its α."""

    @property
    def dtype(self) -> torch.dtype:
        """Float32 or float64."""

    @property
    def alpha(self) -> float:
        """What multiplies the off-diagonal elements of Gram matrices."""

    def solve_bytes(self, shapes: LinearShapes, *, transposed: bool, device: torch.device) -> int:
        """Bytes that a solve takes beside the sums while it runs; `transposed`: weights are stored as (in, out)."""

    def flops(self, in_features: int, out_features: int) -> float:
        """FLOP of a solve, with the out-features of all linears."""

    def solve(self, system: LinearSystem) -> SolveReport:
        """Overwrite right-hand sides by the solution, and the square that the matrix lies in.

        Raises:
            SolveError: there is no trustworthy solution.
        """
