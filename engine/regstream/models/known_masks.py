"""What transformers asks of inputs and masks on a device, answered by what is known of a batch: the host need not wait.

A batch has one row for each sequence, and a mask exactly where a row is padded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel, masking_utils


def _always(answer: object) -> Callable[..., object]:
    return lambda *_: answer


#: Functions of transformers that read values: whether a row holds several sequences, whether nothing is masked, whether
#: to warn of padding without a mask.
_ANSWERS: tuple[tuple[Any, str, Callable[..., object]], ...] = (
    (masking_utils, "find_packed_sequence_indices", _always(None)),
    (masking_utils, "fast_all", _always(False)),
    (PreTrainedModel, "warn_if_padding_and_no_attention_mask", _always(None)),
)


@contextmanager
def known_masks() -> Iterator[None]:
    """Prepare masks within the context without reading values; in another version of transformers, by reading them."""
    replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in _ANSWERS if hasattr(owner, name)]
    for owner, name, answer in _ANSWERS:
        if hasattr(owner, name):
            setattr(owner, name, answer)
    try:
        yield
    finally:
        for owner, name, function in replaced:
            setattr(owner, name, function)
