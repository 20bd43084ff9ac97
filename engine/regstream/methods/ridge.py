"""The option `ridge`, which several methods have."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0; how much a direction gives way to the prior: it is halfway where the sum of the "
    "candidates' Gram matrices, each divided by its norm, has this eigenvalue; 0.001 trusts the calibration rows,"
    " 0.1 the prior; with featcal, and with regfilter where the filter is ridge or relative_ridge; default: 0.05 "
    "with featcal, 0.02 with regfilter"
)
Ridge = Annotated[float, Field(gt=0, description=_MEANING)]
