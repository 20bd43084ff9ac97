"""The option `teacher`, which several methods have, each with a default of its own."""

from typing import Annotated

from pydantic import Field

from regstream.methods.by_block import SameEverywhere

_MEANING = (
    "a number from 0 to 1; how far a linear is taught by what the candidate's own hidden states give (1) and not "
    "by what the candidate's weights make of the merged model's (0); above 0, calibration rows also pass the "
    "candidates; with featcal and regfilter; default: 0.3"
)
Teacher = Annotated[float, Field(ge=0, le=1, description=_MEANING), SameEverywhere()]
