"""ASWUDI (arXiv 2606.07289, SWUDI-A): directions are solved wholly or not at all, as each linear's eigenvalues say.

The formula, the meaning of weights, and the cost are those of `interference.py`.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from regstream.methods.interference import InterferenceMethod, InterferenceOptions
from regstream.methods.method import MethodOptions

if TYPE_CHECKING:
    from torch import Tensor


class AswudiOptions(InterferenceOptions):
    """Options of ASWUDI."""

    filter: Annotated[Literal["participation", "gavish_donoho"], Field(examples=["gavish_donoho"])] = "participation"
    """the directions that aswudi solves: the participation ratio of singular values, or those above the optimal
    threshold for a matrix in noise, which is advised for language models with all weights fine-tuned"""


class Aswudi(InterferenceMethod):
    """f is 1 or 0."""

    name: ClassVar[str] = "aswudi"
    Options: ClassVar[type[MethodOptions]] = AswudiOptions

    options: AswudiOptions

    def filter_factors(self, eigenvalues_I: "Tensor", num_rows: int) -> "Tensor":
        """The filter that the options name."""
        from regstream.linalg.spectral_filters import gavish_donoho, participation

        # Without a task vector there is no matrix, and nothing that a filter could change.
        if self.options.filter == "participation" or num_rows == 0:
            return participation(eigenvalues_I)
        return gavish_donoho(eigenvalues_I, num_rows)
