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
        """The valid tokens one after another, (T, D); of tokens with padding, (B, L, D) or already (B·L, D)."""
        flat_ND = padded_BLD.flatten(0, -2)
        return flat_ND.index_select(0, self._places(flat_ND.device)) if self.is_padded else flat_ND

    def unpack(self, tokens_TD: Tensor) -> Tensor:
        """Tokens back in their places, (B, L, D), zeros where there is padding."""
        if not self.is_padded:
            return tokens_TD.view(*self.shape, tokens_TD.shape[1])
        flat_ND = tokens_TD.new_zeros(self.shape[0] * self.shape[1], tokens_TD.shape[1])
        flat_ND.index_copy_(0, self._places(flat_ND.device), tokens_TD)
        return flat_ND.view(*self.shape, tokens_TD.shape[1])

    def _places(self, device: torch.device) -> Tensor:
        # Indices, not a mask: a mask's count would have to be known on the host, which would wait for the device.
        return self._places_T.to(device, non_blocking=True)

    @cached_property
    def _places_T(self) -> Tensor:
        return self.mask_BL.flatten().nonzero().squeeze(1)
