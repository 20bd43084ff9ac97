"""The rule by which shards stay and go: within the allowance, nothing twice that need not be, nothing too soon."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.repository import HubFile


def file(name: str, size: int = 10) -> HubFile:
    return HubFile(repo="org/model", commit="c", name=name, size=size, digest=name)


A, B, C, D = map(file, "abcd")


def stages(*uses: str, allowance: int | None) -> list[StepShards]:
    return [StepShards(files=tuple(map(file, names)), allowance=allowance) for names in uses]


def go_through(all_stages: list[StepShards], stock: EvictionPolicy) -> tuple[list[HubFile], int]:
    """What is fetched, in order, and the most that is held."""
    fetched, most = [], 0
    for index, stage in enumerate(all_stages):
        stock.begin(index)
        for needed in stage.files:
            for wanted in (needed, stock.upcoming(stock.held.__contains__)):
                if wanted is not None and wanted not in stock.held:
                    stock.admit(wanted)
                    fetched.append(wanted)
                    most = max(most, stock.held_bytes)
            assert needed in stock.held
        assert all(needed in stock.held for needed in stage.files)
    stock.begin(len(all_stages))
    return fetched, most


def test_without_an_allowance_everything_stays() -> None:
    stock = EvictionPolicy(stages("a", "b", "c", allowance=None), [])
    fetched, most = go_through(stages("a", "b", "c", allowance=None), stock)
    assert fetched == [A, B, C]
    assert most == 30
    assert list(stock.held) == [A, B, C]


def test_what_no_stage_needs_any_more_goes_and_no_sooner() -> None:
    stock = EvictionPolicy(stages("a", "ab", "b", "c", allowance=1000), [])
    assert [stock.admit(A), stock.admit(B)] == [[], []]
    assert [stock.begin(0), stock.begin(1), stock.begin(2), stock.begin(3)] == [[], [], [A], [B]]
    stock.admit(C)
    assert stock.begin(4) == [C]


def test_one_comes_ahead_where_there_is_room() -> None:
    stock = EvictionPolicy(stages("ab", "cd", allowance=30), [])
    there = stock.held.__contains__
    assert stock.upcoming(there) == A
    for needed in (A, B):
        stock.admit(needed)
    assert stock.upcoming(there) == C
    stock.admit(C)
    assert stock.upcoming(there) is None  # D has no room before A and B go
    assert stock.begin(1) == [A, B]
    assert stock.upcoming(there) == D


def test_where_room_is_short_what_is_needed_last_goes() -> None:
    stock = EvictionPolicy(stages("a", "b", "c", "b", "a", allowance=20), [])
    stock.admit(A)
    stock.admit(B)
    stock.begin(2)
    assert stock.admit(C) == [A]
    assert stock.begin(3) == [C]
    assert list(stock.held) == [B]


def test_what_is_read_now_goes_only_for_what_was_not_foreseen() -> None:
    stock = EvictionPolicy(stages("ab", allowance=15), [])
    assert stock.admit(A) == []
    assert stock.admit(B) == []  # a plan has refused this
    assert stock.is_over
    assert stock.admit(D) == [A, B]


def test_a_run_that_goes_on_counts_what_it_brought() -> None:
    stock = EvictionPolicy(stages("a", "b", "c", allowance=10), [A, B])
    assert stock.begin(1) == [A]
    assert stock.begin(2) == [B]


uses = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map("".join), min_size=1, max_size=8
)


@given(uses=uses, allowance=st.integers(30, 60))
def test_never_more_than_the_allowance_and_all_is_there(uses: list[str], allowance: int) -> None:
    bounded = stages(*uses, allowance=allowance)
    fetched, most = go_through(bounded, EvictionPolicy(bounded, []))
    assert most <= allowance
    free = stages(*uses, allowance=1 << 40)
    once, ample = go_through(free, EvictionPolicy(free, []))
    assert len(once) == len(set(once))
    if ample <= allowance:
        assert fetched == once


@pytest.mark.parametrize("order", list(permutations("abcd")))
def test_no_other_choice_of_what_goes_fetches_less(order: tuple[str, ...]) -> None:
    """Against every sequence of evictions, for single shards in any order, twice over."""
    sequence = [*order, *"abcd"]
    bounded = stages(*sequence, allowance=20)

    def fewest(position: int, held: frozenset[str]) -> int:
        if position == len(sequence):
            return 0
        name = sequence[position]
        if name in held:
            return fewest(position + 1, held)
        if len(held) < 2:
            return 1 + fewest(position + 1, held | {name})
        return 1 + min(fewest(position + 1, held - {gone} | {name}) for gone in held)

    fetched = []
    stock = EvictionPolicy(bounded, [])
    for index, stage in enumerate(bounded):
        stock.begin(index)
        (needed,) = stage.files
        if needed not in stock.held:
            stock.admit(needed)
            fetched.append(needed)
    assert len(fetched) == fewest(0, frozenset())
