"""RegMean++ (Nguyen et al., arXiv 2508.03121, TMLR 2026): RegMean with Xᵢ from the already merged prefix."""

from typing import ClassVar

from regstream.methods.regmean import RegMean
from regstream.methods.stream import Stream


class RegMeanPlusPlus(RegMean):
    """The same solve; candidate i's own block runs on hidden states that passed the merged blocks before it."""

    name: ClassVar[str] = "regmean++"

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The merged prefix, through the candidate's own block."""
        return (Stream.MERGED,)
