"""What rows of images, or with targets, take in a forward pass beside their hidden states."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class RowCosts:
    """The memory of a batch."""

    argument_bytes: int = 0  # what blocks depend on beside hidden states, with floating-point values in float32
    row_argument_bytes: int = 0  # the same of a row
    max_stem_values: int = 0  # of the largest tensor on the way to the blocks

    def of_rows(self, num_rows: int) -> Self:
        """Of a batch of so many such rows, where these are the costs of one."""
        return replace(
            self,
            argument_bytes=self.argument_bytes * num_rows,
            row_argument_bytes=self.argument_bytes,
            max_stem_values=self.max_stem_values * num_rows,
        )

    def larger(self, other: Self) -> Self:
        """The larger of both in each respect."""
        return replace(
            self,
            argument_bytes=max(self.argument_bytes, other.argument_bytes),
            row_argument_bytes=max(self.row_argument_bytes, other.row_argument_bytes),
            max_stem_values=max(self.max_stem_values, other.max_stem_values),
        )
