"""What libraries keep on the CPU once they have multiplied: buffers, and code that is compiled for each product."""

import math
from collections.abc import Collection, Iterable

import torch

from regstream import COMPILED_PRODUCTS
from regstream.models.batch import Batch

#: What oneDNN keeps of a product that it compiled, by its shapes, for units that multiply bfloat16. Measured with AMX:
#: 0.9 MiB of a linear's, 1.5 MiB on average of those of the quickstart, of which 12 batches have 9 lengths.
_COMPILED_BYTES = 7 << 18


def library_memory(
    shapes: Collection[tuple[int, ...]], batches: Iterable[Batch], dtype: torch.dtype, *, routed: bool = False
) -> dict[str, int]:
    """Bytes, by term, kept of the products of batches with weights of these shapes; they grow with the largest.

    Where tokens are `routed`, each expert multiplies another number of them in each batch: then as much is compiled as
    is kept.
    """
    terms = {"library buffers": max(map(math.prod, shapes)) * dtype.itemsize * 2 // 3}
    if dtype.itemsize > 2:
        return terms
    matrices = {shape for shape in shapes if len(shape) == 2}
    products = len(matrices) + len({shape[1] for shape in matrices})  # those of weights, and Gram matrices
    lengths = len({math.prod(batch.shape) for batch in batches})
    compiled = COMPILED_PRODUCTS if routed else min(COMPILED_PRODUCTS, lengths * products)
    return terms | {"compiled products": compiled * _COMPILED_BYTES}
