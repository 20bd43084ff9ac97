"""SWUDI (arXiv 2606.07289): directions are solved as far as gradient flow gets in a time, and the smallest not at all.

The formula, the meaning of weights, and the cost are those of `interference.py`.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from regstream.methods.interference import InterferenceMethod, InterferenceOptions
from regstream.methods.method import MethodOptions

if TYPE_CHECKING:
    from torch import Tensor


_MEANING = (
    "a number above 0; solves a direction up to 1 − exp(−λ · time), with swudi, and with regfilter where its filter is "
    "exponential; published with swudi: 1300 to 1800 for CLIP, 300 for a 3B language model; default: 1300 with "
    "swudi, 20 with regfilter"
)
Time = Annotated[float, Field(gt=0, description=_MEANING)]


class SwudiOptions(InterferenceOptions):
    """Options of SWUDI. The defaults are those for CLIP ViT-B/32."""

    time: Time = 1300.0
    rank: Annotated[float, Field(gt=0, le=1)] = 0.65
    """a number above 0, at most 1; the fraction of directions that are solved at all, with swudi; published: 0.65 for
    CLIP, 0.85 for a 3B language model"""


class Swudi(InterferenceMethod):
    """f = 1 − exp(−λ · time) on the top `rank` of directions, 0 on the rest."""

    name: ClassVar[str] = "swudi"
    Options: ClassVar[type[MethodOptions]] = SwudiOptions

    options: SwudiOptions

    def filter_factors(self, eigenvalues_I: "Tensor", num_rows: int) -> "Tensor":
        """The exponential filter, on the largest eigenvalues."""
        from regstream.linalg.spectral_filters import exponential

        del num_rows
        return exponential(eigenvalues_I, self.options.time, self.options.rank)
