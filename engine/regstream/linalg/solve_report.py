"""The report of one solve."""

from dataclasses import dataclass
from typing import Literal

Route = Literal["cholesky", "refined", "ridge", "spectral", "mean"]


@dataclass(frozen=True, kw_only=True)
class SolveReport:
    """How one input group was solved.

    `condition` is estimated from below, of the matrix scaled to a unit diagonal, which is what governs the
    error of its Cholesky factorisation (Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.6).
    `residual` is relative, over random combinations of the right-hand sides. `ridge` is relative to the median of the
    Gram matrices' diagonal. The route "mean" is of an expert that no token was routed to: the mean of the candidates.
    """

    group: str
    in_features: int
    linears: tuple[str, ...]
    num_tokens: int
    route: Route
    condition: float
    residual: float
    ridge: float
    #: Inputs that are zero, or negligible beside the others; by the route "spectral" directions. They keep the mean of
    #: the candidates, or the prior.
    dead_inputs: int
