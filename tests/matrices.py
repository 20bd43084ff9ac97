"""Dense matrices as the engine keeps them, and back."""

import torch
from torch import Tensor

from regstream.linalg.packed_symmetric import PackedSymmetric, blocks_width


def empty(width: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> PackedSymmetric:
    """A matrix of zeros in a square of its own."""
    device = device or torch.device("cpu")
    blocks_IP = torch.zeros(width, blocks_width(width, device), dtype=dtype, device=device)
    return PackedSymmetric(torch.zeros(width, width, dtype=dtype, device=device), blocks_IP)


def kept(matrix_II: Tensor) -> PackedSymmetric:
    """A dense symmetric matrix by one triangle."""
    symmetric = empty(matrix_II.shape[0], matrix_II.dtype, matrix_II.device)
    for above, panel, block_PP in symmetric._panels():
        symmetric.square_II[above, panel] = matrix_II[above, panel]
        block_PP.copy_(matrix_II[panel, panel])
    return symmetric


def dense(symmetric: PackedSymmetric) -> Tensor:
    """All of a matrix, by multiplying the identity."""
    square_II = symmetric.square_II
    identity_II = torch.eye(symmetric.width, dtype=square_II.dtype, device=square_II.device)
    result_II = torch.zeros_like(identity_II)
    symmetric.multiply(identity_II, result_II)
    return result_II
