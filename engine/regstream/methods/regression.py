"""What methods share that solve a regression for each linear: sums, memory and work, as their solver takes them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from regstream.methods.method import MergeRule, Method
from regstream.methods.statistics import GroupStatistics, LinearGroup, TokenCounts

if TYPE_CHECKING:
    import torch

    from regstream.device.workspace import Workspace
    from regstream.linalg.linear_system import Solver


class Regression(Method):
    """Weights of linears in blocks are regressed; all else in a block is the mean.

    With a teacher the last of the streams is the candidate's own forward pass, and the one before it the student's.
    """

    #: Whether a candidate's Gram matrix is divided by its norm, and not by its number of tokens.
    divides_by_norm: ClassVar[bool] = False

    @property
    def splits_candidates(self) -> bool:
        """Not where each is divided by the norm of all that is summed of it."""
        return not self.divides_by_norm

    @property
    def bias_ridge(self) -> float:
        """What holds biases to the reference's, where they are solved for."""
        return 0.0

    @property
    def teacher(self) -> float:
        """The part of a linear's target that follows from the candidate's own hidden states."""
        return 0.0

    @abstractmethod
    def solver(self) -> "Solver":
        """How systems are solved, and in which dtype they are formed."""

    def rule(self, *, is_linear: bool) -> MergeRule:
        """Regression for the weights of linears in blocks."""
        return "regress" if is_linear else "average"

    def statistics(self, group: LinearGroup, workspace: "Workspace") -> GroupStatistics:
        """Σ Ĝ/c and Σ (W − R)Ĝ/c."""
        from regstream.linalg.bias_equations import BiasEquations
        from regstream.linalg.normal_equations import NormalEquations
        from regstream.linalg.teacher import Teacher

        dtype, width = self.sums_dtype(), group.in_features
        biased = {linear: group.out_features[linear] for linear in group.biases}
        teacher = biases = None
        if self.teacher:
            teacher = Teacher(self.teacher, width, dtype, group=group.name, workspace=workspace)
        if biased:
            ridge, device = self.bias_ridge, workspace.device
            biases = BiasEquations(biased, width, dtype, ridge=ridge, teacher=self.teacher, device=device)
        return NormalEquations(
            group.name,
            group.shapes,
            solver=self.solver(),
            divides_by_norm=self.divides_by_norm,
            teacher=teacher,
            biases=biases,
            is_routed=group.is_routed,
            workspace=workspace,
        )

    def memory_terms(self, groups: Sequence[LinearGroup], tokens: TokenCounts) -> Mapping[str, int]:
        """A square and the right-hand sides of each group, and scratch for the largest; with a teacher one more."""
        from regstream.linalg.regression_memory import regression_bytes
        from regstream.linalg.teacher import teacher_bytes

        if not groups:  # a pass for norms alone
            return {}
        sums, largest, dtype, device = self.sums_dtype(), tokens.largest_batch, tokens.dtype, tokens.device
        shapes, widths = [group.shapes for group in groups], [group.in_features for group in groups]
        held = regression_bytes(
            shapes, sums=sums, tokens=tokens.candidates, largest_batch=largest, dtype=dtype, device=device
        )
        if not self.teacher:
            return held
        return held | teacher_bytes(widths, sums=sums, largest_batch=largest, dtype=dtype, device=device)

    def solve_bytes(self, group: LinearGroup, device: "torch.device") -> int:
        """What the solver takes."""
        return self.solver().solve_bytes(group.shapes, transposed=group.transposed, device=device)

    def sums_dtype(self) -> "torch.dtype":
        """The solver's."""
        return self.solver().dtype

    def flops(self, group: LinearGroup, tokens: TokenCounts) -> Mapping[str, float]:
        """Of Gram matrices, right-hand sides and the solve."""
        from regstream.linalg.regression_flops import regression_flops
        from regstream.linalg.teacher import teacher_flops

        out_features = sum(group.out_features.values())
        has_reference = self.prior is None
        width, share = group.in_features, 1.0 if group.share is None else group.share
        formed = regression_flops(width, out_features, tokens.candidates, first_is_reference=has_reference, share=share)
        seen = [count for count in tokens.candidates if count]  # a rank may have no tokens of a candidate
        taught = teacher_flops(group.in_features, out_features, seen) if self.teacher else {}
        formed = {kind: flops + taught.get(kind, 0.0) for kind, flops in formed.items()}
        return {**formed, "solves": self.solver().flops(group.in_features, out_features)}
