"""Random masks that follow from a key and a position alone: not from parts, ranks, or what was drawn before.

Words come from Philox, a generator that gives the words at any position without those before it (Salmon et al., SC
2011); numpy promises the same ones for good. Loading this file imports neither numpy nor torch.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

_WORD_BITS: Final = 32
#: Words of 32 bits that one value of Philox's counter gives.
_WORDS_A_COUNT: Final = 8
_KEY_BYTES: Final = 16


def mask_key(seed: int, parameter: str, candidate: str) -> bytes:
    """What the masks of one candidate's tensor follow from: 16 bytes."""
    return hashlib.sha256(json.dumps([seed, parameter, candidate]).encode()).digest()[:_KEY_BYTES]


def random_mask(key: bytes, part: slice, density: float) -> "Tensor":
    """Which values of a part of a tensor are kept: bool, each true with the probability `density`, from 0 to 1.

    The probability is rounded to a multiple of 2⁻³².
    """
    import numpy as np
    import torch

    first, skipped = divmod(part.start, _WORDS_A_COUNT)
    size = part.stop - part.start
    bits = np.random.Philox(counter=first, key=int.from_bytes(key, "little"))
    words = bits.random_raw((skipped + size + 1) // 2).astype("<u8", copy=False).view("<u4")[skipped : skipped + size]
    # Compared as whole numbers of more bits: a density of 1 is above every word.
    return torch.from_numpy(words.astype(np.int64) < round(density * (1 << _WORD_BITS)))
