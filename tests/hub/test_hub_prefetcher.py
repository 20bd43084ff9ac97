"""Shards there when they are read: one ahead, its failures nobody's business before it is needed, a record of all."""

import random
import threading
from pathlib import Path

import pytest

from hub_server import Fault, Hub
from regstream.events import Event, Fetching
from regstream.hub.errors import HubError
from regstream.hub.eviction import StepShards
from regstream.hub.prefetcher import ShardPrefetcher
from regstream.hub.repository import HubFile, open_repository

NAMES = ("a.safetensors", "b.safetensors", "c.safetensors")
SIZE = 300_000


@pytest.fixture
def files(hub: Hub, tmp_path: Path) -> list[HubFile]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name in NAMES:
        (folder / name).write_bytes(random.Random(name).randbytes(SIZE))
    hub.add("org/model", folder)
    repository = open_repository("org/model", None)
    return [repository.files[name] for name in NAMES]


@pytest.fixture
def prefetcher(files: list[HubFile], tmp_path: Path) -> ShardPrefetcher:
    prefetcher = ShardPrefetcher(tmp_path / "downloads")
    prefetcher.add_repository(open_repository("org/model", None))
    return prefetcher


def steps(files: list[HubFile], max_bytes: int | None) -> list[StepShards]:
    return [StepShards(files=(file,), max_bytes=max_bytes) for file in files]


def there(files: list[HubFile]) -> list[bool]:
    return [file.path.exists() for file in files]


def wait_for_downloads() -> None:
    """Until no download is under way. None begins but where a test begins a step or reads a file."""
    for thread in threading.enumerate():
        if thread.name.startswith("fetch "):
            thread.join(60)
            assert not thread.is_alive()


def test_by_itself_a_file_comes_when_it_is_read_and_stays(prefetcher: ShardPrefetcher, files: list[HubFile]) -> None:
    prefetcher.ensure_local(files[1].path)
    prefetcher.ensure_local(Path("/elsewhere/model.safetensors"))
    assert there(files) == [False, True, False]
    assert prefetcher.downloaded() == []


def test_one_comes_ahead_and_no_more(hub: Hub, prefetcher: ShardPrefetcher, files: list[HubFile]) -> None:
    with prefetcher.running(steps(files, 1 << 40), lambda event: None):
        prefetcher.begin_step(0)
        prefetcher.ensure_local(files[0].path)
        wait_for_downloads()
        assert there(files) == [True, True, False]
        prefetcher.begin_step(1)
        assert there(files) == [False, True, False]
        prefetcher.ensure_local(files[1].path)
        wait_for_downloads()
        assert there(files) == [False, True, True]
    assert there(files) == [False, False, False]
    assert len(hub.asked("GET /lfs/.*")) == 3


def test_without_room_none_comes_ahead(prefetcher: ShardPrefetcher, files: list[HubFile]) -> None:
    with prefetcher.running(steps(files, SIZE), lambda event: None):
        prefetcher.begin_step(0)
        prefetcher.ensure_local(files[0].path)
        wait_for_downloads()
        assert there(files) == [True, False, False]
        prefetcher.begin_step(1)
        wait_for_downloads()
        assert there(files) == [False, True, False]


def test_what_fails_ahead_is_tried_again_where_it_is_needed(
    hub: Hub, prefetcher: ShardPrefetcher, files: list[HubFile]
) -> None:
    second, third = (f"GET /lfs/{file.digest}" for file in files[1:])
    hub.faults = [Fault(second, status=404), Fault(third, times=9, status=404)]
    with prefetcher.running(steps(files, None), lambda event: None):
        prefetcher.begin_step(0)
        prefetcher.ensure_local(files[0].path)
        wait_for_downloads()
        assert (there(files), hub.faults[0].times) == ([True, False, False], 0)
        prefetcher.ensure_local(files[1].path)
        with pytest.raises(HubError, match=r"org/model: c.safetensors: the hub has no such file"):
            prefetcher.ensure_local(files[2].path)
    assert there(files) == [True, True, False]


def test_a_stop_is_heard_while_a_file_comes(hub: Hub, prefetcher: ShardPrefetcher, files: list[HubFile]) -> None:
    def stop(event: Event) -> None:
        assert isinstance(event, Fetching)
        assert (event.file, event.total_bytes) == ("org/model: a.safetensors", SIZE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), prefetcher.running(steps(files, None), stop):
        prefetcher.ensure_local(files[0].path)


def test_the_record_outlives_a_torn_line(prefetcher: ShardPrefetcher, files: list[HubFile], tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("models--org--model/blo")
    with prefetcher.running(steps(files, None), lambda event: None):
        prefetcher.ensure_local(files[0].path)
    assert files[0] in prefetcher.downloaded()
