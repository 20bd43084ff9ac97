"""A batch of rows of different lengths, and which of its positions are tokens.

Shape suffixes: B rows, L positions, N = B·L, T valid tokens, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The lengths of the rows of a batch, which is padded on the right to the longest, and their token ids, if any."""

    lengths: tuple[int, ...]
    token_ids: Sequence[NDArray[np.int32]] | None = field(default=None, compare=False, repr=False)

    @property
    def num_tokens(self) -> int:
        """T, without padding."""
        return sum(self.lengths)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L), with padding."""
        return len(self.lengths), max(self.lengths)

    @property
    def is_padded(self) -> bool:
        """Whether any position is padding."""
        return min(self.lengths) < max(self.lengths)

    @cached_property
    def mask_BL(self) -> Tensor:
        """True at tokens, False at padding."""
        return torch.arange(self.shape[1]) < torch.tensor(self.lengths)[:, None]

    def input_ids(self, device: torch.device) -> Tensor:
        """The token ids, (B, L) int64, padded with 0; all 0 where there are none."""
        ids_BL = torch.zeros(self.shape, dtype=torch.long)
        for row, ids in enumerate(self.token_ids or ()):
            ids_BL[row, : len(ids)] = torch.from_numpy(ids)
        return ids_BL.to(device)

    def attention_mask(self, device: torch.device) -> Tensor | None:
        """The mask for transformers, (B, L) int64; None without padding."""
        return self.mask_BL.long().to(device, non_blocking=True) if self.is_padded else None

    def pack(self, padded_BLD: Tensor) -> Tensor:
        """Return the valid tokens, (T, D), of a padded tensor, (B, L, D) or (N, D)."""
        flat_ND = padded_BLD.flatten(0, -2)
        if not self.is_padded:
            return flat_ND
        return flat_ND.index_select(0, self._token_indices_T.to(flat_ND.device, non_blocking=True))

    def unpack(self, tokens_TD: Tensor) -> Tensor:
        """Return the padded tensor, (B, L, D), of valid tokens; padding is 0."""
        if not self.is_padded:
            return tokens_TD.view(*self.shape, tokens_TD.shape[1])
        flat_ND = tokens_TD.new_zeros(self.shape[0] * self.shape[1], tokens_TD.shape[1])
        flat_ND.index_copy_(0, self._token_indices_T.to(flat_ND.device, non_blocking=True), tokens_TD)
        return flat_ND.view(*self.shape, tokens_TD.shape[1])

    @cached_property
    def _token_indices_T(self) -> Tensor:
        # Indexing with a mask would wait for the device, since the host needs the number of tokens.
        return self.mask_BL.flatten().nonzero().squeeze(1)
