"""The option `scale`, which several methods have, each with a default of its own."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0; multiplies the merged difference from the base, with task_arithmetic, ties, swudi, aswudi and "
    "featcal, and in the prior of regfilter; default: 0.3 with task_arithmetic and featcal, 1.0 with the others"
)
Scale = Annotated[float, Field(gt=0, description=_MEANING)]
