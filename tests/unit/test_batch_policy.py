"""How many rows go through a block together."""

import pytest

from regstream.data.batch_policy import BatchPolicy


def sizes(lengths: list[int], *, batch_rows: int | None = None, max_features: int = 0) -> list[int]:
    """Rows of each batch."""
    return [len(rows) for rows in BatchPolicy(batch_rows, max_features).batches(lengths, int)]


def test_as_many_as_asked_for_whatever_their_length() -> None:
    assert sizes([4096] * 7, batch_rows=3, max_features=14336) == [3, 3, 1]


def test_by_itself_up_to_2048_tokens() -> None:
    assert sizes([50] * 80, max_features=3072) == [40, 40]
    assert sizes([256] * 24, max_features=1536) == [8, 8, 8]


def test_by_itself_evenly() -> None:
    assert sizes([50] * 64, max_features=3072) == [32, 32]
    assert sizes([50] * 100, max_features=3072) == [34, 33, 33]
    assert sizes([256] * 20, max_features=1536) == [7, 7, 6]


@pytest.mark.parametrize(("max_features", "rows"), [(1536, 4), (3072, 4), (5120, 3), (8192, 2), (14336, 2)])
def test_by_itself_fewer_where_the_widest_activation_would_be_large(max_features: int, rows: int) -> None:
    assert sizes([512] * 16, max_features=max_features)[0] == rows


def test_by_itself_more_of_the_short_ones_and_the_long_ones_alone() -> None:
    assert sizes([2048, 1500, 1000, 400, 400, 300, 300, 100], max_features=8192) == [1, 1, 1, 2, 3]


def test_every_row_once_in_order() -> None:
    lengths = [900, 500, 300, 200, 100, 50, 20]
    assert [length for rows in BatchPolicy(None, 8192).batches(lengths, int) for length in rows] == lengths


def test_no_rows_no_batches() -> None:
    assert sizes([]) == []
