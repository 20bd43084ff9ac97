"""What must not show in the bytes: how many threads, and whether files were in the page cache."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from crash.faults import in_child
from crash.resuming import contents
from merging import Merge, make_merge


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """Wide enough that several threads share a product, with rows enough that products are summed."""
    folder, merge = tmp_path_factory.mktemp("wide"), {"method": "regmean++"}
    return make_merge(
        folder, "llama", candidates=2, layers=2, hidden=256, num_rows=64, merge=merge, dtype=request.param
    )


def run_with(merge: Merge, num_threads: int, *, cold: bool = False) -> dict[str, bytes]:
    """The result's files."""

    def work() -> None:
        torch.set_num_threads(num_threads)
        if cold:
            for path in merge.manifest.parent.rglob("*.safetensors"):
                drop_from_cache(path)
        merge.run()

    assert in_child(work) == 0
    files = contents(merge.output)
    shutil.rmtree(merge.output)
    return files


def drop_from_cache(path: Path) -> None:
    """Have the kernel forget a file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.mark.slow
def test_any_number_of_threads(wide: Merge, request: pytest.FixtureRequest) -> None:
    once = run_with(wide, 1)
    assert run_with(wide, 2) == once
    # Units for bfloat16 of some processors add in another order with three.
    if request.node.callspec.params["wide"] == torch.float32:
        assert run_with(wide, 3) == once


@pytest.mark.slow
def test_cold_and_warm_page_cache(wide: Merge) -> None:
    assert run_with(wide, 2, cold=True) == run_with(wide, 2)
