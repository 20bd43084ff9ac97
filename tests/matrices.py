"""Dense matrices as the engine keeps them, and back."""

import math

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
    identity_II = torch.eye(symmetric.width, dtype=square_II.dtype).to(square_II.device)
    result_II = torch.zeros_like(identity_II)
    symmetric.multiply(identity_II, result_II)
    return result_II


def unit_diagonal(width: int, condition: float, *, seed: int = 0) -> Tensor:
    """A symmetric positive definite matrix, float64, of about this condition once its diagonal is scaled to one."""
    generator = torch.Generator().manual_seed(seed)
    vectors_II = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    matrix_II = vectors_II * torch.logspace(0, -math.log10(condition), width, dtype=torch.float64) @ vectors_II.T
    scale_I = matrix_II.diagonal().rsqrt()
    scaled_II: Tensor = matrix_II * scale_I * scale_I[:, None]
    return scaled_II


def rows(count: int, width: int) -> Tensor:
    """Random right-hand sides, float64."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
