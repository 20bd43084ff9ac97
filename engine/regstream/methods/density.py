"""The option `density`, which several methods have."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0, at most 1; the fraction of each difference from the base that ties keeps, with ties, and with "
    "regfilter where the prior is ties"
)
Density = Annotated[float, Field(gt=0, le=1, description=_MEANING)]
