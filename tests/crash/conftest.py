"""Small merges, what undisturbed runs make of them, and every place on the disk that such runs touch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from crash.faults import count_places, in_child, kind_of
from crash.resuming import Resuming, contents
from disk import no_waiting_for_the_disk
from merging import Merge, make_merge
from parametrize import slow

__all__ = ["no_waiting_for_the_disk"]

#: Of the second kind two steps share a shard: stem and first block, second block and head.
KINDS = {
    "regmean++": {"method": "regmean++"},
    "shared shards": {"method": "regmean++", "shard_size": "80KiB"},
    "featcal": {"method": "featcal"},
    "groups in turn": {"method": "regfilter"},
}
Places = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def resuming_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Resuming]:
    """A small merge of a kind, not yet run."""

    @cache
    def make(kind: str) -> Resuming:
        folder = tmp_path_factory.mktemp("merge")
        merge = make_merge(folder, "llama-tied", candidates=2, layers=2, num_rows=4, merge=KINDS[kind])
        merge.run()  # in this process: what libraries set up at their first use is there in every child
        assert len(list(merge.output.glob("*.safetensors"))) == (2 if kind == "shared shards" else 4)
        result = Resuming(merge, contents(merge.output), folder / "begun")
        result.forget()
        return result

    return make


@pytest.fixture(scope="session")
def places_of(resuming_of: Callable[[str], Resuming], tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Every operation on the disk that a run of a kind goes through."""

    @cache
    def list_places(kind: str) -> list[str]:
        resuming, listing = resuming_of(kind), tmp_path_factory.mktemp("places") / "places"
        assert in_child(lambda: _list_places(resuming.merge, listing)) == 0
        resuming.forget()
        return listing.read_text().splitlines()

    return list_places


@pytest.fixture(params=["regmean++", *map(slow, list(KINDS)[1:])])
def kind(request: pytest.FixtureRequest) -> str:
    """Which merge; the first every day, all of them in CI."""
    return str(request.param)


@pytest.fixture
def resuming(kind: str, resuming_of: Callable[[str], Resuming]) -> Resuming:
    """The merge, not yet run."""
    return resuming_of(kind)


@pytest.fixture
def places(kind: str, places_of: Places) -> list[str]:
    """Every operation on the disk that a run goes through."""
    return places_of(kind)


@pytest.fixture
def kinds_before(kind: str, places_of: Places) -> set[str]:
    """The kinds of operations that runs of the kinds of merges before this one go through."""
    earlier = list(KINDS)[: list(KINDS).index(kind)]
    return {kind_of(place) for name in earlier for place in places_of(name)}


def _list_places(merge: Merge, listing: Path) -> None:
    listing.write_text("\n".join(count_places(merge.run, merge.output)))
