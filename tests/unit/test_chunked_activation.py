"""Activation functions in pieces: the same values, of whatever layout, in the place of the input."""

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from regstream.models.chunked_activation import ChunkedActivation, chunk_activations

FUNCTIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh", "sigmoid"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_same_to_the_last_bit(function: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, 517, 1536, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = ACT2FN[function](x)
    result = ChunkedActivation(ACT2FN[function])(x)
    assert torch.equal(result, expected)
    assert result.data_ptr() == x.data_ptr()


def test_half_of_each_row_as_of_fused_projections() -> None:
    x = torch.randn(2, 700, 3072, generator=torch.Generator().manual_seed(0))
    gate, up = x.chunk(2, dim=-1)
    expected, other = nn.functional.silu(gate), up.clone()
    assert torch.equal(ChunkedActivation(nn.SiLU())(gate), expected)
    assert torch.equal(up, other)


def test_a_piece_is_a_piece() -> None:
    seen: list[int] = []
    function = nn.ReLU()
    function.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    ChunkedActivation(function)(torch.randn(64, 8192))
    assert sum(seen) == 64 * 8192
    assert max(seen) == 8192 * max(1, (1 << 15) * torch.get_num_threads() // 8192)


def test_no_rows_and_one_row_wider_than_a_piece() -> None:
    assert ChunkedActivation(nn.ReLU())(torch.zeros(0, 8)).shape == (0, 8)
    wide = torch.randn(1, (1 << 15) * torch.get_num_threads() * 2)
    expected = wide.relu()
    assert torch.equal(ChunkedActivation(nn.ReLU())(wide), expected)


def test_of_a_block_only_what_is_elementwise_and_has_no_parameters() -> None:
    inner = nn.Sequential(ACT2FN["quick_gelu"])
    block = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Softmax(-1), nn.PReLU(), inner)
    chunk_activations(block)
    assert [isinstance(module, ChunkedActivation) for module in block] == [False, True, False, False, False]
    assert isinstance(inner[0], ChunkedActivation)
