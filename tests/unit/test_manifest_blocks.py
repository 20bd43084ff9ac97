"""Block selectors: their syntax, and what they choose."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.manifest.blocks import parse_blocks, select_blocks


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("3", {3}),
        ("0-3", {0, 1, 2, 3}),
        ("0,4-6", {0, 4, 5, 6}),
        (" 0 , 4 - 6 ", {0, 4, 5, 6}),
        ("early", set(range(4))),
        ("middle", set(range(4, 8))),
        ("late", set(range(8, 12))),
        ("middle+late", set(range(4, 12))),
        ("middle,late", set(range(4, 12))),
        ("0,late", {0, *range(8, 12)}),
    ],
)
def test_of_twelve_blocks(text: str, chosen: set[int]) -> None:
    assert select_blocks(text, 12) == chosen


@pytest.mark.parametrize("text", ["", ",", "3,", "a", "-1", "1-", "0-1-2", "Early", "3.0", "٣", "1" * 7])
def test_what_is_no_selector_is_refused_when_read(text: str) -> None:
    with pytest.raises(ValueError, match="expected a block"):
        parse_blocks(text)


def test_a_range_runs_forwards() -> None:
    with pytest.raises(ValueError, match='write "3-7"'):
        parse_blocks("7-3")


def test_a_block_out_of_range_is_said_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="names block 12, but the model has 12 blocks, 0 to 11"):
        select_blocks("0-12", 12)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=200))
def test_thirds_share_out_the_blocks(num_blocks: int) -> None:
    thirds = [select_blocks(region, num_blocks) for region in ("early", "middle", "late")]
    assert sorted(block for third in thirds for block in third) == list(range(num_blocks))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1))
def test_the_canonical_spelling_chooses_the_same(spans: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + length}" for first, length in spans)
    canonical = str(parse_blocks(text))
    assert select_blocks(canonical, 50) == select_blocks(text, 50)
    assert canonical == str(parse_blocks(",".join(map(str, sorted(select_blocks(text, 50), reverse=True)))))
