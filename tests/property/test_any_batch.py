"""Whatever the lengths of the rows: packing and unpacking undo each other."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.models.batch import Batch

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)


@given(lengths=LENGTHS, width=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_unpacking_and_packing_undo_each_other(lengths: tuple[int, ...], width: int) -> None:
    batch = Batch(lengths)
    tokens_TD = torch.arange(1.0, batch.num_tokens * width + 1).view(batch.num_tokens, width)
    padded_BLD = batch.unpack(tokens_TD)
    assert padded_BLD.shape == (*batch.shape, width)
    assert torch.equal(batch.pack(padded_BLD), tokens_TD)
    # No token is zero here, so what is zero is padding and nothing else.
    assert torch.equal(padded_BLD[..., 0] != 0, batch.mask_BL)
