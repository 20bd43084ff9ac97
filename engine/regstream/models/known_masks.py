"""What transformers asks of masks on a device, answered by what is known of a batch: the host need not wait for it.

A batch has one row for each sequence, and a mask only where a row is padded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import masking_utils

#: Functions of transformers that read values: whether a row holds several sequences, whether nothing is masked.
_ANSWERS: dict[str, Any] = {"find_packed_sequence_indices": None, "fast_all": False}


@contextmanager
def known_masks() -> Iterator[None]:
    """Prepare masks within the context without reading values; in another version of transformers, by reading them."""
    replaced = {name: getattr(masking_utils, name) for name in _ANSWERS if hasattr(masking_utils, name)}
    for name in replaced:
        setattr(masking_utils, name, lambda _, answer=_ANSWERS[name]: answer)
    try:
        yield
    finally:
        for name, function in replaced.items():
            setattr(masking_utils, name, function)
