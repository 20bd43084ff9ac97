"""What a row of images takes in a forward pass beside its hidden states."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class RowCosts:
    """The memory of a row."""

    argument_bytes: int = 0  # what blocks depend on beside hidden states, with floating-point values in float32
    max_stem_values: int = 0  # of the largest tensor on the way to the blocks

    def larger(self, other: Self) -> Self:
        """The larger of both in each respect."""
        return replace(
            self,
            argument_bytes=max(self.argument_bytes, other.argument_bytes),
            max_stem_values=max(self.max_stem_values, other.max_stem_values),
        )
