"""Norms of products are those of the whole matrices: exactly of few rows, about of many."""

import pytest
import torch
from torch import Tensor

from regstream.device.workspace import Workspace
from regstream.linalg.row_sketch import TokenSketch, centred_rows, weight_sketch

CPU = torch.device("cpu")


def sketched(tokens_TI: Tensor, batch: int) -> Tensor:
    """The sketch of tokens that come so many at a time."""
    sketch = TokenSketch(tokens_TI.shape[1], Workspace(CPU))
    for part_TI in torch.split(tokens_TI, batch):
        sketch.append(part_TI)
    return centred_rows(sketch.sums(), len(tokens_TI))


def tokens(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random tokens around a mean, as those of a model are."""
    generator = torch.Generator().manual_seed(count)
    return (3 + torch.randn(count, 64, generator=generator)).to(dtype)


def test_of_few_tokens_and_out_features_the_norm_is_exact() -> None:
    tokens_TI, weight_OI = tokens(200), torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    sketch = weight_sketch((300, 64), CPU)
    sketch.add(weight_OI[:100], first=0)
    sketch.add(weight_OI[100:], first=100)
    expected = float((tokens_TI.double() @ weight_OI.double().T).norm())
    assert float((sketched(tokens_TI, 37) @ sketch.sums_SI.T).norm()) == pytest.approx(expected, rel=1e-5)


def test_sums_of_parts_of_the_tokens_add_up() -> None:
    tokens_TI = tokens(1000)
    parts = [TokenSketch(64, Workspace(CPU), first_token=first) for first in (0, 300)]
    parts[0].append(tokens_TI[:300])
    parts[1].append(tokens_TI[300:])
    whole_SI = centred_rows(parts[0].sums() + parts[1].sums(), 1000)
    torch.testing.assert_close(whole_SI, sketched(tokens_TI, 500), rtol=1e-4, atol=1e-3)


def test_of_many_it_is_estimated() -> None:
    tokens_TI, weight_OI = tokens(3000), torch.randn(2000, 64, generator=torch.Generator().manual_seed(2))
    sketch = weight_sketch((2000, 64), CPU)
    sketch.add(weight_OI, first=0)
    expected = float((tokens_TI @ weight_OI.T).norm())
    assert float((sketched(tokens_TI, 500) @ sketch.sums_SI.T).norm()) == pytest.approx(expected, rel=0.05)


def test_a_sum_of_tokens_beyond_float16_does_not_overflow() -> None:
    tokens_TI = 100 * tokens(1000, torch.float16)  # whose sum is about 300,000
    expected = float(tokens_TI.double().norm())
    assert float(sketched(tokens_TI, 1000).norm()) == pytest.approx(expected, rel=0.05)
