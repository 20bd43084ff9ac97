"""RegMean (Jin et al., ICLR 2023): each linear minimises Σᵢ ‖XᵢW − XᵢWᵢ‖², Xᵢ from candidate i's own forward pass."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.method import (
    GroupStatistics,
    LinearGroup,
    MergeRule,
    Method,
    MethodOptions,
    Stream,
    TokenCounts,
)
from regstream.methods.search_space import Tries

if TYPE_CHECKING:
    import torch

    from regstream.device.workspace import Workspace
    from regstream.linalg.solve_report import SolveReport


class RegMeanOptions(MethodOptions):
    """Options of RegMean and RegMean++."""

    alpha: Annotated[float, Field(ge=0, le=1), Tries(0.1, 0.5, 0.8, 0.9, 0.95, 1.0)] = 0.95
    """a number from 0 to 1; multiplies the off-diagonal elements of the Gram matrices, with regmean and regmean++"""


class RegMean(Method):
    """Weights of linears in blocks are regressed; all else in a block is the mean."""

    name: ClassVar[str] = "regmean"
    Options: ClassVar[type[MethodOptions]] = RegMeanOptions
    streams: ClassVar[tuple[Stream, ...]] = (Stream.OWN,)
    advice: ClassVar[str] = "use more calibration rows, or a smaller alpha"

    options: RegMeanOptions

    def rule(self, *, is_linear: bool) -> MergeRule:
        """Regression for the weights of linears in blocks."""
        return "regress" if is_linear else "average"

    def statistics(self, group: LinearGroup, workspace: "Workspace") -> GroupStatistics:
        """ΣĜ and Σ(W − R)Ĝ."""
        from regstream.linalg.normal_equations import NormalEquations

        return NormalEquations(group.name, group.shapes, alpha=self.options.alpha, workspace=workspace)

    def memory_terms(self, groups: Sequence[LinearGroup], tokens: TokenCounts) -> Mapping[str, int]:
        """One square and the right-hand sides of each group, and scratch for the largest."""
        from regstream.linalg.regression_memory import regression_bytes

        return regression_bytes(
            [group.shapes for group in groups],
            alpha=self.options.alpha,
            tokens=tokens.candidates,
            largest_batch=tokens.largest_batch,
            dtype=tokens.dtype,
            device=tokens.device,
        )

    def solve_bytes(self, group: LinearGroup, device: "torch.device") -> int:
        """Rows in refinement, or on their way to a solution of a singular system."""
        from regstream.linalg.regression_memory import solve_bytes

        return solve_bytes(group.shapes, alpha=self.options.alpha, transposed=group.transposed, device=device)

    def sums_dtype(self) -> "torch.dtype":
        """Float32, or float64 where alpha leaves the condition unbounded."""
        from regstream.linalg.gram import accumulation_dtype

        return accumulation_dtype(self.options.alpha)

    def flops(self, group: LinearGroup, tokens: TokenCounts) -> Mapping[str, float]:
        """Of Gram matrices, right-hand sides and the solve."""
        from regstream.linalg.regression_flops import regression_flops

        return regression_flops(group.in_features, sum(group.out_features.values()), tokens.candidates)

    def solve_warning(self, report: "SolveReport", dtype: "torch.dtype") -> str | None:
        """Whether tokens determine the system, by more than their rounding."""
        from regstream.linalg.factorisation import max_determined_condition

        if report.ridge > 0:
            return "near-singular: in directions that no token reaches the result is the mean of the candidates"
        if report.condition > max_determined_condition(self.sums_dtype(), dtype):
            return (
                "ill-conditioned: in directions that tokens reach by little more than rounding weights may be too large"
            )
        return None
