"""A parameter that holds the matrices of many linears one after another, as mixtures of experts do."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FusedWeight:
    """A parameter with the rows of all experts, and the matrices it consists of: names in the order of its values."""

    shape: tuple[int, ...]  # (experts, rows, columns), or (experts * rows, columns)
    num_experts: int
    pieces: tuple[str, ...]  # as many for each expert, one expert after another

    @property
    def piece_shape(self) -> tuple[int, int]:
        """The shape of each matrix, as it is stored."""
        *rows, columns = self.shape
        return math.prod(rows) // len(self.pieces), columns

    @property
    def pieces_per_expert(self) -> int:
        """How many matrices an expert has."""
        return len(self.pieces) // self.num_experts

    def of_expert(self, expert: int) -> tuple[str, ...]:
        """The matrices of one expert."""
        first = expert * self.pieces_per_expert
        return self.pieces[first : first + self.pieces_per_expert]
