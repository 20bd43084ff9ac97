"""RegFilter: regression to a prior through a filter, with statistics from the merged prefix.

RegMean++ decides every direction of a linear's inputs by regression, and has nothing to say about one that calibration
tokens hardly visit. Here that direction keeps a prior R, and a filter decides how sharply the one gives way to the
other: with A = Σ wᵢGᵢ/‖Gᵢ‖_F = V diag(λ) Vᵀ,

    W = R + [Σ wᵢ(Wᵢ − R)Gᵢ/‖Gᵢ‖_F] V diag(f/λ) Vᵀ.

RegMean++ at α = 1 is the prior "average" with a full filter, and Gram matrices per token. SWUDI and ASWUDI (arXiv
2606.07289) have the same form, with Gram matrices of the candidates' differences in place of those of activations. The
ridge to an anchor is FeatCal's (arXiv 2605.13030), and so is the teacher, which turns each candidate's targets towards
what its own hidden states give. tools/decisions/regfilter.md has the derivation.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from regstream.methods.aswudi import Aswudi, AswudiOptions
from regstream.methods.average import Average
from regstream.methods.base_prior import Base
from regstream.methods.density import Density
from regstream.methods.method import MergeRule, Method, MethodOptions
from regstream.methods.prior_model import PriorModel
from regstream.methods.regmean import Alpha
from regstream.methods.regression import Regression
from regstream.methods.ridge import Ridge
from regstream.methods.scale import Scale
from regstream.methods.search_space import Settings
from regstream.methods.stream import Stream
from regstream.methods.swudi import Time
from regstream.methods.task_arithmetic import TaskArithmetic, TaskArithmeticOptions
from regstream.methods.teacher import Teacher
from regstream.methods.ties import Ties, TiesOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from regstream.linalg.linear_system import Solver
    from regstream.linalg.solve_report import SolveReport

_STREAMS = {"own": Stream.OWN, "merged_prefix": Stream.MERGED, "merged": Stream.MERGED_BLOCK}

_WITHOUT_SCALE = ("base", "average", "model")  # priors


class RegFilterOptions(MethodOptions):
    """Options of RegFilter."""

    prior: Literal["base", "average", "task_arithmetic", "ties", "aswudi", "model"] = "task_arithmetic"
    """what a direction keeps that calibration rows hardly visit, with regfilter: the base, what a method without
    data makes (aswudi with the filter participation), or the checkpoint that prior_model names (model)"""
    scale: Scale = 1.0
    density: Density = 0.2
    statistics: Literal["own", "merged_prefix", "merged"] = "merged"
    """what calibration rows pass on their way to a linear, with regfilter: the candidate's own blocks, as with regmean
    (own); merged blocks, then the candidate's own block, as with regmean++ (merged_prefix); or merged blocks and the
    merged part of the block alone (merged)"""
    filter: Literal["ridge", "relative_ridge", "alpha", "exponential", "participation", "gavish_donoho"] = (
        "relative_ridge"
    )
    """how directions give way to the prior, with regfilter: smoothly, by a ridge, by a ridge in proportion to each
    input's own mean square (relative_ridge), by an off-diagonal scale (alpha) or exponentially; with regfilter and
    aswudi: wholly or not at all, by the participation ratio of singular values, or by the optimal threshold for a
    matrix in noise (gavish_donoho), which is advised for language models with all weights fine-tuned"""
    ridge: Ridge = 0.02
    alpha: Alpha = 0.95
    time: Time = 20.0
    teacher: Teacher = 0.3


class RegFilter(Regression):
    """The prior gives way where tokens go."""

    name: ClassVar[str] = "regfilter"
    Options: ClassVar[type[MethodOptions]] = RegFilterOptions
    divides_by_norm: ClassVar[bool] = True

    options: RegFilterOptions

    def search_space(self) -> tuple[Settings, ...]:
        """How directions give way to the prior, and how far it goes where it has a scale."""
        filters: list[Settings] = [{"filter": "relative_ridge", "ridge": ridge} for ridge in (0.005, 0.02, 0.05)]
        filters.append({"filter": "ridge", "ridge": 0.01})
        if self.options.prior in _WITHOUT_SCALE:
            return tuple(filters)
        return tuple({"scale": scale, **kind} for scale in (0.5, 1.0) for kind in filters)

    def rule_outside(self, published: MergeRule) -> MergeRule:
        """The mean: embeddings of language models with all weights fine-tuned have learnt, too."""
        del published
        return "average"

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
        scale = self.options.scale
        priors: dict[str, Callable[[], Method]] = {
            "base": lambda: Base(MethodOptions()),
            "average": lambda: Average(MethodOptions()),
            "task_arithmetic": lambda: TaskArithmetic(TaskArithmeticOptions(scale=scale)),
            "ties": lambda: Ties(TiesOptions(scale=scale, density=self.options.density)),
            "aswudi": lambda: Aswudi(AswudiOptions(scale=scale)),
            "model": lambda: PriorModel(MethodOptions()),
        }
        return priors[self.options.prior]()

    def unused_options(self) -> Mapping[str, str]:
        """The options of other priors and of other filters."""
        prior, kind = self.options.prior, self.options.filter
        filters = {"ridge": ("ridge", "relative_ridge"), "alpha": ("alpha",), "time": ("exponential",)}
        unused = {key: f'the filter is "{kind}"' for key, kinds in filters.items() if kind not in kinds}
        priors = {"scale": prior in _WITHOUT_SCALE, "density": prior != "ties"}
        return {**unused, **{key: f'the prior is "{prior}"' for key, is_unused in priors.items() if is_unused}}

    def solve_warning(self, report: "SolveReport", dtype: "torch.dtype") -> str | None:
        """Where an off-diagonal scale leaves the system singular; other filters do not."""
        del dtype
        if report.ridge == 0:
            return None
        return "near-singular: in directions that no token reaches the result is the prior"

    def solver(self) -> "Solver":
        """A Cholesky factorisation for a ridge or an off-diagonal scale, else an eigendecomposition."""
        from regstream.linalg.cholesky_solver import CholeskySolver
        from regstream.linalg.spectral_solver import SpectralSolver

        if self.options.filter == "ridge":
            return CholeskySolver(ridge=self.options.ridge)
        if self.options.filter == "relative_ridge":
            return CholeskySolver(relative_ridge=self.options.ridge)
        if self.options.filter == "alpha":
            return CholeskySolver(alpha=self.options.alpha)
        return SpectralSolver(self._factors)

    def _factors(self, eigenvalues_I: "Tensor", num_tokens: int) -> "Tensor":
        """A spectral filter's factors."""
        from regstream.linalg import spectral_filters

        if self.options.filter == "exponential":
            return spectral_filters.exponential(eigenvalues_I, self.options.time)
        if self.options.filter == "participation":
            return spectral_filters.participation(eigenvalues_I)
        return spectral_filters.gavish_donoho(eigenvalues_I, num_tokens)
