"""Which forward passes a method observes."""

from enum import Enum
from typing import Literal

#: The blocks that hidden states passed on their way to a block: the merged ones, or each candidate's own.
Prefix = Literal["merged", "own"]


class Stream(Enum):
    """A forward pass of every candidate's calibration set through a block, observed at the inputs of its linears."""

    OWN = "own"  # hidden states that passed the candidate's own blocks, through its own block
    MERGED = "merged"  # hidden states that passed the merged blocks, through the candidate's own block
    #: Hidden states that passed the merged blocks, through the merged block as far as it is solved: input groups are
    #: solved one after another, in the order in which they run; what is not regressed is merged before.
    MERGED_BLOCK = "merged block"
    #: Hidden states that passed the merged blocks, through the block as `combine` has it, before anything is solved.
    COMBINED_BLOCK = "combined block"

    @property
    def prefix(self) -> Prefix:
        """Which hidden states the pass starts from."""
        return "own" if self is Stream.OWN else "merged"

    @property
    def runs_candidate(self) -> bool:
        """Whether the block that it passes is the candidate's own."""
        return self in (Stream.OWN, Stream.MERGED)
