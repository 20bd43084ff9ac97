"""FeatCal (arXiv 2605.13030): a merged model calibrated block by block, so that it computes what the candidates do.

The merged model W_m is task arithmetic. The student's hidden states X_s passed the calibrated blocks and then the block
as W_m has it; the teacher's, X_e, passed candidate i's own blocks. With X_t = aX_e + (1 − a)X_s,

    W [Σ wᵢCᵢ/cᵢ + λ] = Σ wᵢWᵢRᵢ/cᵢ + λA,     Cᵢ = X_sᵀX_s/n,  Rᵢ = X_tᵀX_s/n,  cᵢ = ‖Cᵢ‖_F,  A = ρW_m + (1 − ρ)W₀,

for the weights of linears; their biases, and weights and biases of the norms of a block, by the same principle
(`bias_equations`, `norm_equations`). Any other parameter of a block is W_m's. What is solved for is the difference from
A. Embeddings, head and final norm are as for any other regression, by `[merge.others]`.

Where the paper and its published code differ, the paper is followed: the code sets ρ = 2.2 and a = 0.25. Two things of
the code are left out: it adds 10⁻⁸ to λ on the left side only, and in the last block of a vision transformer tokens
other than the first weigh 0.01 for all linears but keys and values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.regression import Regression
from regstream.methods.ridge import Ridge
from regstream.methods.scale import Scale
from regstream.methods.statistics import GroupStatistics, NormGroup
from regstream.methods.stream import Stream
from regstream.methods.task_arithmetic import TaskArithmetic, TaskArithmeticOptions
from regstream.methods.teacher import Teacher
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from regstream.device.workspace import Workspace
    from regstream.linalg.linear_system import Solver


class FeatCalOptions(MethodOptions):
    """Options of FeatCal."""

    scale: Scale = 0.3
    anchor: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """a number above 0, at most 1000; what featcal's ridge pulls weights to: the base plus so many times the difference
    of the model merged by task arithmetic from it"""
    ridge: Ridge = 0.05
    teacher: Teacher = 0.3


class FeatCal(Regression):
    """Linears, their biases, and norms are calibrated; the rest is task arithmetic."""

    name: ClassVar[str] = "featcal"
    Options: ClassVar[type[MethodOptions]] = FeatCalOptions
    divides_by_norm: ClassVar[bool] = True

    options: FeatCalOptions

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The student, and the teacher where there is one."""
        return (Stream.COMBINED_BLOCK, *([Stream.OWN] if self.teacher else []))

    @property
    def teacher(self) -> float:
        """As the manifest says."""
        return self.options.teacher

    @property
    def bias_ridge(self) -> float:
        """As of weights."""
        return self.options.ridge

    @property
    def prior(self) -> Method:
        """The anchor."""
        return TaskArithmetic(TaskArithmeticOptions.model_construct(scale=self.options.anchor * self.options.scale))

    def rule(self, *, is_linear: bool) -> MergeRule:
        """Everything is solved for that can be."""
        return "regress" if is_linear else "calibrate"

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """W_m."""
        return self._merged.combine(source)

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """Those of task arithmetic."""
        return self._merged.combine_reads(num_candidates)

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Those of task arithmetic."""
        return self._merged.combine_bytes(shape, num_candidates, is_linear=is_linear, device=device)

    @property
    def _merged(self) -> TaskArithmetic:
        return TaskArithmetic(TaskArithmeticOptions(scale=self.options.scale))

    def solver(self) -> "Solver":
        """A Cholesky factorisation, of a matrix that the ridge keeps well-conditioned."""
        from regstream.linalg.cholesky_solver import CholeskySolver

        return CholeskySolver(ridge=self.options.ridge)

    def norm_statistics(self, norm: NormGroup, workspace: "Workspace") -> GroupStatistics:
        """Means of normalised inputs and of their squares."""
        from regstream.linalg.norm_equations import NormEquations

        return NormEquations(
            norm.name, norm.channels, has_bias=norm.has_bias, ridge=self.options.ridge, device=workspace.device
        )

    def norm_terms(self, norms: Sequence[NormGroup], values: int, itemsize: int) -> Mapping[str, int]:
        """Normalised inputs of one norm; the sums are vectors."""
        from regstream.linalg.norm_equations import norm_bytes

        return {"normalised inputs": norm_bytes(values, itemsize)} if norms else {}
