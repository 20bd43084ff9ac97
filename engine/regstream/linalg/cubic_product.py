"""M MᵀM, by whichever of MMᵀ and MᵀM is smaller. Shape suffixes: O rows, I columns."""

from torch import Tensor

from regstream.linalg.gram import symmetric_product_flops


def add_cubic_product(into_OI: Tensor, matrix_OI: Tensor, weight: float) -> None:
    """Add weight · M MᵀM, with a temporary of `cubic_product_bytes`."""
    if matrix_OI.shape[0] <= matrix_OI.shape[1]:
        into_OI.addmm_(matrix_OI @ matrix_OI.T, matrix_OI, alpha=weight)
    else:
        into_OI.addmm_(matrix_OI, matrix_OI.T @ matrix_OI, alpha=weight)


def cubic_product_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of the smaller Gram matrix."""
    return min(shape) ** 2 * itemsize


def cubic_product_flops(shape: tuple[int, ...]) -> float:
    """FLOP of `add_cubic_product`."""
    smaller, larger = sorted(shape)
    return symmetric_product_flops(larger, smaller) + 2.0 * larger * smaller**2
