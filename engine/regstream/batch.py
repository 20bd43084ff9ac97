"""Rows of different lengths side by side: what is a token, and what is padding.

Shape suffixes: B rows, L positions, T valid tokens, D features.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The lengths of rows that go through a model together, padded on the right to the longest."""

    lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Valid tokens, padding not counted."""
        return sum(self.lengths)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L) with padding."""
        return len(self.lengths), max(self.lengths)

    @property
    def is_padded(self) -> bool:
        """Whether any position is padding."""
        return min(self.lengths) < max(self.lengths)

    @cached_property
    def mask_BL(self) -> Tensor:
        """True where a position is a token."""
        return torch.arange(self.shape[1]) < torch.tensor(self.lengths)[:, None]

    def attention_mask(self, device: torch.device) -> Tensor | None:
        """The mask that transformers expects, (B, L), or None where nothing is padded."""
        return self.mask_BL.to(device=device, dtype=torch.long) if self.is_padded else None

    def pack(self, padded_BLD: Tensor) -> Tensor:
        """The valid tokens one after another, (T, D)."""
        if not self.is_padded:
            return padded_BLD.flatten(0, 1)
        return padded_BLD[self.mask_BL.to(padded_BLD.device)]

    def unpack(self, tokens_TD: Tensor) -> Tensor:
        """Tokens back in their places, (B, L, D), zeros where there is padding."""
        if not self.is_padded:
            return tokens_TD.view(*self.shape, tokens_TD.shape[1])
        padded_BLD = tokens_TD.new_zeros(*self.shape, tokens_TD.shape[1])
        padded_BLD[self.mask_BL.to(tokens_TD.device)] = tokens_TD
        return padded_BLD
