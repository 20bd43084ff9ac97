"""However the tokens are cut into batches: the Gram matrix is the dense one, within rounding."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import dense, empty
from regstream.linalg.gram import Gram, Workspace


@given(
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda cuts: sum(cuts) > 0),
    in_features=st.integers(1, 20),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    offset=st.sampled_from([0.0, 1.0, 30.0]),
)
@settings(max_examples=40, deadline=None)
def test_streamed_equals_dense(cuts: list[int], in_features: int, dtype: torch.dtype, offset: float) -> None:
    generator = torch.Generator().manual_seed(in_features)
    x_TI = (torch.randn(sum(cuts), in_features, generator=generator) + offset).to(dtype)
    streamed = Gram(empty(in_features), Workspace(torch.device("cpu"), torch.float32))
    streamed.expect(len(x_TI))
    for part_TI in torch.split(x_TI, cuts):
        streamed.add(part_TI)
    dense_II = x_TI.double().T @ x_TI.double()
    assert streamed.num_tokens == len(x_TI)
    # The rounding of a sum of n products, each bounded by the product of the columns' norms (Higham, chapter 3).
    norms_I = x_TI.double().norm(dim=0)
    bound_II = (len(x_TI) + len(cuts)) * 2**-24 * torch.outer(norms_I, norms_I)
    total = empty(in_features)
    streamed.add_to(total, 1.0)
    assert bool(((dense(total).double() - dense_II).abs() <= bound_II).all())
