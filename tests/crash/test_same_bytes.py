"""What must not show in the bytes: what the page cache held. And what a run is held to: its number of threads."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from crash.faults import in_child
from crash.resuming import Resuming, contents
from merging import Merge, make_merge
from regstream.errors import ResumeError
from regstream.events import Event, StepCommitted


@pytest.fixture(scope="module")
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """Wide enough that several threads share a product, with rows enough that products of batches are summed."""
    folder, merge = tmp_path_factory.mktemp("wide"), {"method": "regmean++"}
    return make_merge(
        folder,
        "llama",
        candidates=2,
        layers=1,
        hidden=256,
        num_rows=12,
        merge=merge,
        dtype=request.param,
        resources=f'device = "cpu"\ncompute_dtype = "{str(request.param).removeprefix("torch.")}"',
    )


def with_threads(num_threads: int, work: Callable[[], object]) -> int:
    """Do it in a process of its own with so many threads; its exit code."""

    def threaded() -> None:
        torch.set_num_threads(num_threads)
        work()

    return in_child(threaded)


def run_with(merge: Merge, num_threads: int) -> dict[str, bytes]:
    """The result's files."""
    assert with_threads(num_threads, merge.run) == 0
    files = contents(merge.output)
    shutil.rmtree(merge.output)
    return files


def kill_after_a_block(event: Event) -> None:
    """End the process at once when the first block is committed."""
    if isinstance(event, StepCommitted) and event.name == "block 0":
        os.kill(os.getpid(), signal.SIGKILL)


def drop_from_cache(path: Path) -> None:
    """Have the kernel forget a file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fdatasync(descriptor)  # nothing waits for fsync here
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


ONE_KIND = pytest.mark.parametrize("kind", ["regmean++"], indirect=True)


@pytest.mark.slow
@pytest.mark.parametrize(("wide", "num_threads"), [(torch.float32, 3), (torch.bfloat16, 2)], indirect=["wide"])
def test_one_number_of_threads(wide: Merge, num_threads: int) -> None:
    assert run_with(wide, num_threads) == run_with(wide, num_threads)


@pytest.mark.slow
@ONE_KIND
def test_another_number_of_threads_is_refused(resuming: Resuming, capfd: pytest.CaptureFixture[str]) -> None:
    merge = resuming.merge
    undisturbed = run_with(merge, 2)
    assert with_threads(2, lambda: merge.run(listener=kill_after_a_block)) == -signal.SIGKILL
    assert with_threads(3, merge.run) == ResumeError.exit_code
    assert "device OMP_NUM_THREADS: 2 before, 3 now" in capfd.readouterr().err
    assert run_with(merge, 2) == undisturbed


@pytest.mark.slow
@ONE_KIND
def test_cold_and_warm_page_cache(resuming: Resuming) -> None:
    for path in resuming.merge.manifest.parent.rglob("*.safetensors"):
        drop_from_cache(path)
    assert in_child(resuming.run) == 0
    assert contents(resuming.merge.output) == resuming.undisturbed
    resuming.forget()
