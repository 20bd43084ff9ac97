"""Sign election of TIES (Yadav et al., NeurIPS 2023): what agrees with the sign of a weighted sum is added up.

    s = sign Σ fᵢτᵢ,   τ = Σ fᵢτᵢ over the candidates with fᵢτᵢ · s > 0, over the Σ wᵢ of these where it is normalized

with fᵢ = wᵢ and W = W₀ + scale · τ; or fᵢ = wᵢ · scaleᵢ and W = W₀ + τ where candidates have scales of their own. Where
the sum is zero there is no sign, and the base stays. Sums are in float64, where differences are exact: signs do not
depend on rounding.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes for each value of a part: sums, weights and a candidate's values in float64, and masks; measured.
ELECTION_BYTES_A_VALUE: Final = 56

_MEANING = (
    "true or false; whether what agrees in sign is divided by the sum of its weights, which makes it a mean, or only "
    "summed, with ties and dare_ties"
)
Normalize = Annotated[bool, Field(description=_MEANING)]


def elect_signs(
    base_P: "Tensor",
    task_vector: "Callable[[int], Tensor]",
    *,
    weights: Sequence[float],
    scales: Sequence[float | None],
    scale: float,
    normalize: bool,
) -> "Tensor":
    """W for a part of a tensor, float32.

    `task_vector(i)` gives what is left of candidate i's difference, float64, (P,), anew at each call. `scales` are
    the candidates' own, in place of `scale`.
    """
    import torch

    factors = {index: weight for index, weight in enumerate(weights) if weight > 0}
    if any(own is not None for own in scales):
        factors = {i: w * (scale if (own := scales[i]) is None else own) for i, w in factors.items()}
        scale = 1.0
    sign = torch.zeros(base_P.shape, dtype=torch.float64)
    for index, factor in factors.items():
        sign.add_(task_vector(index), alpha=factor)
    sign.sign_()
    merged, total = torch.zeros_like(sign), torch.zeros_like(sign)
    for index, factor in factors.items():
        values = task_vector(index).mul_(factor)
        agrees = values * sign > 0
        merged.add_(values.mul_(agrees))
        total.add_(agrees, alpha=weights[index])
    if normalize:
        merged.div_(total.masked_fill_(total == 0, 1))
    return base_P.double().add_(merged, alpha=scale).float()
