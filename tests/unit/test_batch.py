"""Batches: padding, masks, and tokens that come back to their places."""

import pytest
import torch

from regstream.models.batch import Batch

CPU = torch.device("cpu")


def test_a_batch_tells_its_tokens_and_its_shape() -> None:
    batch = Batch((5, 3, 1))
    assert (batch.num_tokens, batch.shape, batch.is_padded) == (9, (3, 5), True)
    assert batch.mask_BL.sum(dim=1).tolist() == [5, 3, 1]
    assert batch.mask_BL[1].tolist() == [True, True, True, False, False]


def test_rows_of_one_length_need_no_mask() -> None:
    batch = Batch((4, 4))
    assert not batch.is_padded
    assert batch.attention_mask(CPU) is None


def test_the_attention_mask_is_what_transformers_expects() -> None:
    mask = Batch((2, 1)).attention_mask(CPU)
    assert mask is not None
    assert mask.dtype == torch.long
    assert mask.tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("lengths", [(4, 2, 3), (3, 3), (1,)])
def test_packing_takes_the_tokens_row_by_row_and_leaves_padding_out(lengths: tuple[int, ...]) -> None:
    batch = Batch(lengths)
    padded_BLD = torch.arange(batch.shape[0] * batch.shape[1] * 2.0).view(*batch.shape, 2)
    expected = torch.cat([padded_BLD[row, :length] for row, length in enumerate(lengths)])
    assert torch.equal(batch.pack(padded_BLD), expected)


@pytest.mark.parametrize("lengths", [(4, 2, 3), (3, 3)])
def test_what_stands_in_the_padding_never_gets_through(lengths: tuple[int, ...]) -> None:
    batch = Batch(lengths)
    padded_BLD = torch.full((*batch.shape, 2), float("nan"))
    padded_BLD[batch.mask_BL] = 1.0
    tokens_TD = batch.pack(padded_BLD)
    assert torch.equal(tokens_TD, torch.ones(batch.num_tokens, 2))
    assert not batch.unpack(tokens_TD).isnan().any()
