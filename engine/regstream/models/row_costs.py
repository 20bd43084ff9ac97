"""What a row of images takes in a forward pass beside its hidden states."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowCosts:
    """The memory of a row."""

    argument_bytes: int = 0  # what blocks depend on beside hidden states, with floating-point values in float32
    max_stem_values: int = 0  # of the largest tensor on the way to the blocks
