"""RegFilter: regression to a prior through a filter, with statistics from the merged prefix.

RegMean++ decides every direction of a linear's inputs by regression, and has nothing to say about one that calibration
tokens hardly visit. Here that direction keeps a prior R, and a filter decides how sharply the one gives way to the
other: with A = Σ wᵢGᵢ/‖Gᵢ‖_F = V diag(λ) Vᵀ,

    W = R + [Σ wᵢ(Wᵢ − R)Gᵢ/‖Gᵢ‖_F] V diag(f/λ) Vᵀ.

RegMean++ at α = 1 is the prior "mean" with a full filter and Gᵢ per token; SWUDI and ASWUDI (arXiv 2606.07289) have the
same form, with the Gram matrices of the candidates' differences in place of those of activations; the ridge to an
anchor is FeatCal's (arXiv 2605.13030), and so is the teacher, which turns each candidate's targets towards what its own
hidden states give. tools/decisions/regfilter.md has the derivation.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from regstream.methods.average import Average
from regstream.methods.base import Base
from regstream.methods.method import Method, MethodOptions, Stream
from regstream.methods.regression import Regression
from regstream.methods.ridge import Ridge
from regstream.methods.task_arithmetic import TaskArithmetic, TaskArithmeticOptions
from regstream.methods.teacher import Teacher

if TYPE_CHECKING:
    from torch import Tensor

    from regstream.linalg.linear_system import Solver

_STREAMS = {"own": Stream.OWN, "merged": Stream.MERGED, "merged block": Stream.MERGED_BLOCK}


class RegFilterOptions(MethodOptions):
    """Options of RegFilter."""

    prior: Literal["base", "mean", "task_arithmetic"] = "task_arithmetic"
    """what a direction keeps that calibration rows hardly visit, with regfilter"""
    prior_scale: Annotated[float, Field(gt=0)] = 1.0
    """a number above 0; multiplies the sum of task vectors in the prior "task_arithmetic\""""
    statistics: Literal["own", "merged", "merged block"] = "merged block"
    """what calibration rows pass on their way to a linear, with regfilter: the candidate's own blocks, the merged
    blocks and then the candidate's own, or merged blocks only"""
    filter: Literal["ridge", "participation", "exponential", "gavish_donoho"] = "ridge"
    """how a direction gives way to the prior, with regfilter: smoothly (ridge, exponential) or not at all"""
    ridge: Ridge = 0.05
    filter_time: Annotated[float, Field(gt=0)] = 300.0
    """a number above 0; a direction of eigenvalue λ keeps e^(-λ·time) of the prior, with filter = "exponential\""""
    teacher: Teacher = 0.0


class RegFilter(Regression):
    """The prior gives way where tokens go."""

    name: ClassVar[str] = "regfilter"
    Options: ClassVar[type[MethodOptions]] = RegFilterOptions
    divides_by_norm: ClassVar[bool] = True

    options: RegFilterOptions

    @property
    def streams(self) -> tuple[Stream, ...]:
        """As the manifest says; the teacher is a stream of its own where it is not the student."""
        return (_STREAMS[self.options.statistics], *([Stream.OWN] if self.teacher else []))

    @property
    def teacher(self) -> float:
        """As the manifest says; none where the student passes the candidate's own blocks: it is the teacher."""
        return 0.0 if self.options.statistics == "own" else self.options.teacher

    @property
    def prior(self) -> Method:
        """As the manifest says."""
        if self.options.prior == "base":
            return Base(MethodOptions())
        if self.options.prior == "mean":
            return Average(MethodOptions())
        return TaskArithmetic(TaskArithmeticOptions(scale=self.options.prior_scale))

    def solver(self) -> "Solver":
        """A Cholesky factorisation for a ridge, an eigendecomposition for any other filter."""
        from regstream.linalg import spectral_filters
        from regstream.linalg.cholesky_solver import CholeskySolver
        from regstream.linalg.spectral_solver import SpectralSolver

        if self.options.filter == "ridge":
            return CholeskySolver(ridge=self.options.ridge)

        def factors(eigenvalues_I: "Tensor", num_tokens: int) -> "Tensor":
            if self.options.filter == "participation":
                return spectral_filters.participation(eigenvalues_I)
            if self.options.filter == "exponential":
                return spectral_filters.exponential(eigenvalues_I, self.options.filter_time)
            return spectral_filters.gavish_donoho(eigenvalues_I, num_tokens)

        return SpectralSolver(factors)
