"""The eviction policy: within the limit, every step's shards are on disk, and none goes while there is room for it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.hub.eviction import EvictionPolicy, StepShards
from regstream.hub.repository import HubFile


def file(name: str, size: int = 10) -> HubFile:
    return HubFile(repo="org/model", commit="c", name=name, size=size, digest=name)


A, B, C, D = map(file, "abcd")


def steps(*reads: str, max_bytes: int | None) -> list[StepShards]:
    return [StepShards(files=tuple(map(file, names)), max_bytes=max_bytes) for names in reads]


def simulate(all_steps: list[StepShards], *, prefetch: bool = True) -> tuple[list[HubFile], int, EvictionPolicy]:
    """What is downloaded, in order, and the most bytes on disk."""
    policy, downloads, peak = EvictionPolicy(all_steps, []), list[HubFile](), 0
    for index, step in enumerate(all_steps):
        policy.begin_step(index)
        for needed in step.files:
            for wanted in (needed, policy.next_prefetch(policy.files.__contains__) if prefetch else None):
                if wanted is not None and wanted not in policy.files:
                    policy.admit(wanted)
                    downloads.append(wanted)
                    peak = max(peak, policy.num_bytes)
            assert needed in policy.files
        assert all(needed in policy.files for needed in step.files)
    policy.begin_step(len(all_steps))
    return downloads, peak, policy


def test_without_a_limit_everything_stays() -> None:
    downloads, peak, policy = simulate(steps("a", "b", "c", max_bytes=None))
    assert downloads == [A, B, C]
    assert peak == 30
    assert list(policy.files) == [A, B, C]


def test_a_shard_goes_after_its_last_use_and_no_sooner() -> None:
    policy = EvictionPolicy(steps("a", "ab", "b", "c", max_bytes=1000), [])
    assert [policy.admit(A), policy.admit(B)] == [[], []]
    assert [policy.begin_step(index) for index in range(4)] == [[], [], [A], [B]]
    policy.admit(C)
    assert policy.begin_step(4) == [C]


def test_one_comes_ahead_where_there_is_room() -> None:
    policy = EvictionPolicy(steps("ab", "cd", max_bytes=30), [])
    is_cached = policy.files.__contains__
    assert policy.next_prefetch(is_cached) == A
    for needed in (A, B):
        policy.admit(needed)
    assert policy.next_prefetch(is_cached) == C
    policy.admit(C)
    assert policy.next_prefetch(is_cached) is None  # D has no room before A and B go
    assert policy.begin_step(1) == [A, B]
    assert policy.next_prefetch(is_cached) == D


def test_within_a_limit_none_comes_ahead_of_the_next_step() -> None:
    policy = EvictionPolicy(steps("a", "a", "b", max_bytes=None), [A])
    assert policy.next_prefetch(policy.files.__contains__) == B
    policy = EvictionPolicy(steps("a", "a", "b", max_bytes=30), [A])
    assert policy.next_prefetch(policy.files.__contains__) is None
    policy.begin_step(1)
    assert policy.next_prefetch(policy.files.__contains__) == B


def test_without_room_all_that_the_step_does_not_read_goes() -> None:
    policy = EvictionPolicy(steps("a", "b", "bc", "b", "a", max_bytes=20), [])
    policy.admit(A)
    policy.admit(B)
    assert policy.begin_step(2) == []
    assert policy.admit(C) == [A]
    assert policy.begin_step(3) == [C]
    assert list(policy.files) == [B]


def test_when_the_limit_falls_shards_of_other_steps_go() -> None:
    falling = [*steps("ab", max_bytes=20), *steps("a", "ab", max_bytes=10)]
    policy = EvictionPolicy(falling, [A, B])
    assert policy.begin_step(0) == []
    assert policy.begin_step(1) == [B]


def test_shards_of_the_current_step_go_only_for_an_unplanned_read() -> None:
    policy = EvictionPolicy(steps("ab", max_bytes=15), [])
    assert policy.admit(A) == []
    assert policy.admit(B) == []  # a plan has refused this
    assert policy.num_bytes > 15
    assert policy.admit(D) == [A, B]
    assert policy.admit(A) == [D]


def test_a_resumed_run_counts_its_earlier_downloads() -> None:
    policy = EvictionPolicy(steps("a", "b", "c", max_bytes=10), [A, B])
    assert policy.begin_step(1) == [A]
    assert policy.begin_step(2) == [B]


reads = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map("".join), min_size=1, max_size=8
)


@settings(deadline=None)
@given(reads=reads, max_bytes=st.integers(30, 60))
def test_never_more_than_the_limit_and_every_shard_is_there(reads: list[str], max_bytes: int) -> None:
    downloads, peak, _ = simulate(steps(*reads, max_bytes=max_bytes))
    assert peak <= max_bytes
    once, ample, _ = simulate(steps(*reads, max_bytes=1 << 40))
    assert len(once) == len(set(once))
    if ample <= max_bytes:
        assert downloads == once


@settings(deadline=None)
@given(reads=reads, max_bytes=st.integers(30, 60))
def test_prefetching_downloads_no_more(reads: list[str], max_bytes: int) -> None:
    """So that a plan knows the downloads of a run, however far ahead the run gets."""
    ahead, _, _ = simulate(steps(*reads, max_bytes=max_bytes))
    on_demand, _, _ = simulate(steps(*reads, max_bytes=max_bytes), prefetch=False)
    assert sorted(ahead, key=str) == sorted(on_demand, key=str)
