"""Products of narrow values: exact whatever units form them, and nothing else is narrowed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from matrices import dense, empty
from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.device.workspace import Workspace
from regstream.linalg.gram import Gram

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)]
NARROW = MatmulPrecision(torch.float32, torch.bfloat16)


def whole_numbers(num_tokens: int, in_features: int) -> Tensor:
    """Of up to eight significant bits, as bfloat16 has; sums of so few products are exact in float32."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-255, 256, (num_tokens, in_features), generator=generator).float()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("num_tokens", [40, 200])  # kept as they are, and multiplied at once
def test_gram_matrices_of_whole_numbers_are_exact(device: torch.device, dtype: torch.dtype, num_tokens: int) -> None:
    x_TI = whole_numbers(num_tokens, 96).to(device, dtype)
    gram = Gram(empty(96, torch.float32, device), Workspace(device))
    gram.reset(num_tokens)
    for part_TI in torch.split(x_TI, 33):
        gram.add(part_TI)
    total = empty(96, torch.float32, device)
    gram.add_to(total, 1.0)
    assert torch.equal(dense(total).double(), x_TI.double().T @ x_TI.double())


@pytest.mark.parametrize("device", DEVICES)
def test_values_of_the_full_width_are_not_narrowed(device: torch.device) -> None:
    x_TI = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).to(device)
    exact_II = x_TI.double().T @ x_TI.double()
    with default_precision(torch.float32).exact_fast_matmul(device):
        product_II = x_TI.T @ x_TI
    assert (product_II - exact_II).abs().max() < 1e-3
    gram = Gram(empty(256, torch.float32, device), Workspace(device))
    gram.reset(512)
    gram.add(x_TI)
    assert (gram.diagonal() - exact_II.diagonal()).abs().max() < 1e-3


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_set_is_set_again(device: torch.device) -> None:
    backends: Any = torch.backends  # untyped
    backend = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul
    before = backend.fp32_precision
    with NARROW.exact_fast_matmul(device):
        assert backend.fp32_precision != before
    with pytest.raises(KeyError), NARROW.exact_fast_matmul(device):
        raise KeyError
    assert backend.fp32_precision == before
    with MatmulPrecision(torch.float64, torch.bfloat16).exact_fast_matmul(device):
        assert backend.fp32_precision == before
