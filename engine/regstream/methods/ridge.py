"""The option `ridge`, which several methods have."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0; the eigenvalue at which a direction is halfway to the prior, with featcal, and with regfilter "
    "where the filter is ridge; default: 0.05 with featcal, 0.01 with regfilter"
)
Ridge = Annotated[float, Field(gt=0, description=_MEANING)]
