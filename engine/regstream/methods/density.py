"""The option `density`, which several methods have."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0, at most 1; the fraction of each difference from the base that is kept, with ties and, where the "
    "prior is ties, with regfilter its largest values, with dare_linear and dare_ties values drawn at random; default: "
    "0.2 where the largest are kept, 0.5 where they are drawn"
)
Density = Annotated[float, Field(gt=0, le=1, description=_MEANING)]
