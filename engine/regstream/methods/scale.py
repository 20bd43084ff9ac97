"""The option `scale`, which several methods have, each with a default of its own."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number above 0, at most 1000; multiplies the merged difference from the base (with task_arithmetic the sum"
    " of the candidates' differences, of which one over their number is the mean), with task_arithmetic, ties, "
    "dare_linear, dare_ties, swudi, aswudi and featcal, and in the prior of regfilter; default: 0.3 with "
    "task_arithmetic, dare_linear and featcal, 1.0 with the others"
)
Scale = Annotated[float, Field(gt=0, le=1000, description=_MEANING)]
