"""A small merge, what an undisturbed run makes of it, and every place on the disk that such a run touches."""

from pathlib import Path

import pytest

from crash.faults import count_places, in_child
from crash.resuming import Resuming, contents
from disk import no_waiting_for_the_disk
from merging import Merge, make_merge

__all__ = ["no_waiting_for_the_disk"]

#: Of the second kind two steps share a shard: stem and first block, second block and head.
KINDS = {
    "regmean++": {"method": "regmean++"},
    "shared shards": {"method": "regmean++", "shard_size": "80KiB"},
    "regmean": {"method": "regmean"},
}


@pytest.fixture(scope="module", params=KINDS)
def resuming(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Resuming:
    """A small merge, not yet run."""
    folder = tmp_path_factory.mktemp("merge")
    merge = make_merge(folder, "llama-tied", candidates=2, layers=2, num_rows=4, merge=KINDS[request.param])
    assert in_child(merge.run) == 0
    assert len(list(merge.output.glob("*.safetensors"))) == (2 if request.param == "shared shards" else 4)
    result = Resuming(merge, contents(merge.output), folder / "begun")
    result.forget()
    return result


@pytest.fixture(scope="module")
def places(resuming: Resuming, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every operation on the disk that a run goes through."""
    listing = tmp_path_factory.mktemp("places") / "places"
    assert in_child(lambda: _list_places(resuming.merge, listing)) == 0
    resuming.forget()
    return listing.read_text().splitlines()


def _list_places(merge: Merge, listing: Path) -> None:
    listing.write_text("\n".join(count_places(merge.run, merge.output)))
