"""Small merges on several ranks, and what their results hold."""

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from merging import Merge
from rank_processes import EndedRank, run_ranks
from regstream.errors import RegstreamError

#: Float32 sums of the same terms in another order.
ROUNDING = 1e-5


def run_on(size: int, merge: Merge, *arguments: str) -> list[EndedRank]:
    """Run the merge's manifest on so many ranks."""
    return run_ranks(size, ["run", merge.manifest, *arguments], merge.manifest.parent / "ranks")


def assert_all_well(ended: list[EndedRank]) -> None:
    """Every rank has ended without an error."""
    assert [rank.code for rank in ended] == [0] * len(ended), "\n".join(rank.stderr for rank in ended)


def shards(output: Path) -> Mapping[str, bytes]:
    """The bytes of every shard."""
    return {path.name: path.read_bytes() for path in output.glob("*.safetensors")}


def tensors(output: Path) -> dict[str, Tensor]:
    """Every stored tensor, float64."""
    return {n: t.double() for path in output.glob("*.safetensors") for n, t in load_file(path).items()}


def on_ranks(merge: Merge, size: int, work: Callable[[], object]) -> list[EndedRank]:
    """Have every rank do something, with the exit code of the error that ends it."""

    def run() -> int:
        try:
            work()
        except RegstreamError as error:
            print(error)
            return error.exit_code
        return 0

    return run_ranks(size, run, merge.manifest.parent / "ranks")
