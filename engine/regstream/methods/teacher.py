"""The option `teacher`, which several methods have, each with a default of its own."""

from typing import Annotated

from pydantic import Field

_MEANING = (
    "a number from 0 to 1; the part of a linear's target that follows from the candidate's own hidden states, not from "
    "the merged model's, with featcal and regfilter; default: 0.3 with featcal, 0.0 with regfilter"
)
Teacher = Annotated[float, Field(ge=0, le=1, description=_MEANING)]
