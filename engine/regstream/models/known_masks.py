"""What transformers asks of inputs and masks on a device, answered by what is known of a batch: the host need not wait.

A batch has one row for each sequence, and a mask exactly where a row is padded.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from transformers import PreTrainedModel, masking_utils

_IN_CONTEXT = threading.local()


def _answered(function: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is answered for within `known_masks`, by the thread that is there, and asked otherwise."""

    @wraps(function)
    def asked(*args: Any, **keywords: Any) -> Any:
        is_known = getattr(_IN_CONTEXT, "depth", 0) > 0
        return answer(function, *args, **keywords) if is_known else function(*args, **keywords)

    return asked


def _unless_masked(function: Callable[..., Any], mask: object, *args: Any, **keywords: Any) -> Any:
    return False if mask is not None else function(mask, *args, **keywords)


#: Functions of transformers that read values: whether a row holds several sequences, whether nothing is masked, whether
#: to warn of padding without a mask. Another version that lacks one of them reads the values.
for _owner, _name, _answer in (
    (masking_utils, "find_packed_sequence_indices", lambda *_, **__: None),
    (masking_utils, "fast_all", lambda *_, **__: False),
    (masking_utils, "_ignore_bidirectional_mask_sdpa", _unless_masked),
    (PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_, **__: None),
):
    if hasattr(_owner, _name):
        setattr(_owner, _name, _answered(getattr(_owner, _name), _answer))


@contextmanager
def known_masks() -> Iterator[None]:
    """Prepare masks within the context without reading values."""
    _IN_CONTEXT.depth = getattr(_IN_CONTEXT, "depth", 0) + 1
    try:
        yield
    finally:
        _IN_CONTEXT.depth -= 1
