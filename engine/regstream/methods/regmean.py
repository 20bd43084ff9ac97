"""RegMean (Jin et al., ICLR 2023): each linear minimises Σᵢ ‖XᵢW − XᵢWᵢ‖², Xᵢ from candidate i's own forward pass."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.method import MethodOptions
from regstream.methods.regression import Regression
from regstream.methods.search_space import Tries
from regstream.methods.stream import Stream

if TYPE_CHECKING:
    import torch

    from regstream.linalg.linear_system import Solver
    from regstream.linalg.solve_report import SolveReport


_MEANING = (
    "a number from 0 to 1; multiplies the off-diagonal elements of the Gram matrices, with regmean, regmean++, and "
    "regfilter where its filter is alpha"
)
Alpha = Annotated[float, Field(ge=0, le=1, description=_MEANING)]


class RegMeanOptions(MethodOptions):
    """Options of RegMean and RegMean++."""

    alpha: Annotated[Alpha, Tries(0.1, 0.5, 0.8, 0.9, 0.95, 1.0)] = 0.95


class RegMean(Regression):
    """The reference decides nothing: in directions that no token visits the result is the candidates' mean."""

    name: ClassVar[str] = "regmean"
    Options: ClassVar[type[MethodOptions]] = RegMeanOptions
    advice: ClassVar[str] = "use more calibration rows, or a smaller alpha"

    options: RegMeanOptions

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Each candidate's own forward pass."""
        return (Stream.OWN,)

    def solver(self) -> "Solver":
        """By Cholesky factorisation; in float64 where alpha leaves the condition unbounded."""
        from regstream.linalg.cholesky_solver import CholeskySolver

        return CholeskySolver(alpha=self.options.alpha)

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
