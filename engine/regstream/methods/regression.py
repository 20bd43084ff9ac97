"""What methods share that solve a regression for each linear: sums, memory and work, as their solver takes them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from regstream.methods.method import GroupStatistics, LinearGroup, MergeRule, Method, TokenCounts

if TYPE_CHECKING:
    import torch

    from regstream.device.workspace import Workspace
    from regstream.linalg.linear_system import Solver


class Regression(Method):
    """Weights of linears in blocks are regressed; all else in a block is the mean."""

    #: Whether a candidate's Gram matrix is divided by its norm, and not by its number of tokens.
    divides_by_norm: ClassVar[bool] = False

    @abstractmethod
    def solver(self) -> "Solver":
        """How systems are solved, and in which dtype they are formed."""

    def rule(self, *, is_linear: bool) -> MergeRule:
        """Regression for the weights of linears in blocks."""
        return "regress" if is_linear else "average"

    def statistics(self, group: LinearGroup, workspace: "Workspace") -> GroupStatistics:
        """Σ Ĝ/c and Σ (W − R)Ĝ/c."""
        from regstream.linalg.normal_equations import NormalEquations

        return NormalEquations(
            group.name,
            group.shapes,
            solver=self.solver(),
            divides_by_norm=self.divides_by_norm,
            workspace=workspace,
        )

    def memory_terms(self, groups: Sequence[LinearGroup], tokens: TokenCounts) -> Mapping[str, int]:
        """One square and the right-hand sides of each group, and scratch for the largest."""
        from regstream.linalg.regression_memory import regression_bytes

        return regression_bytes(
            [group.shapes for group in groups],
            sums=self.sums_dtype(),
            tokens=tokens.candidates,
            largest_batch=tokens.largest_batch,
            dtype=tokens.dtype,
            device=tokens.device,
        )

    def solve_bytes(self, group: LinearGroup, device: "torch.device") -> int:
        """What the solver takes."""
        return self.solver().solve_bytes(group.shapes, transposed=group.transposed, device=device)

    def sums_dtype(self) -> "torch.dtype":
        """The solver's."""
        return self.solver().dtype

    def flops(self, group: LinearGroup, tokens: TokenCounts) -> Mapping[str, float]:
        """Of Gram matrices, right-hand sides and the solve."""
        from regstream.linalg.regression_flops import regression_flops

        out_features = sum(group.out_features.values())
        has_reference = self.prior is None
        formed = regression_flops(group.in_features, out_features, tokens.candidates, first_is_reference=has_reference)
        return {**formed, "solves": self.solver().flops(group.in_features, out_features)}
