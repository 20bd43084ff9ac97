"""The tensors among the arguments of an operation."""

from collections.abc import Iterable, Iterator

from torch import Tensor


def tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, alone or in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_among(value)
