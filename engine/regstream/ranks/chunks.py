"""What is on its way from one rank to another at a time."""

from collections.abc import Iterator

from torch import Tensor

#: Values of a tensor.
CHUNK_VALUES = 4 << 20
#: Bytes of a file.
CHUNK_BYTES = 16 << 20


def chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Views of a tensor, a few rows at a time."""
    if tensor.dim() == 0 or tensor.numel() <= CHUNK_VALUES:
        yield tensor
        return
    rows = max(1, CHUNK_VALUES // max(1, tensor[0].numel()))
    for top in range(0, tensor.shape[0], rows):
        yield tensor[top : top + rows]
