"""Files that appear whole or not at all, with the modes and the digests of what was written."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from regstream.storage import digests, durable


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with durable.atomic_file(path) as file:
        file.write(b"first, ")
        assert not path.exists()
        file.write(b"second")
    assert path.read_bytes() == b"first, second"
    assert names(tmp_path) == ["file"]
    assert (file.num_bytes, file.sha256) == (13, hashlib.sha256(b"first, second").hexdigest())


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt(), ValueError("a bug")])
@pytest.mark.parametrize("existed", [False, True])
def test_after_an_error_stands_what_stood_before(tmp_path: Path, error: BaseException, *, existed: bool) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_bytes(b"old")

    def write() -> None:
        with durable.atomic_file(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == (["file"] if existed else [])
    assert not existed or path.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_at_the_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(os if call == "fsync" else Path, call, refuse)
    with pytest.raises(OSError, match="refused"):
        durable.write_file(tmp_path / "file", b"data")
    assert names(tmp_path) == []


def test_a_longer_file_is_replaced_wholly(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    durable.write_file(path, b"short")
    assert path.read_bytes() == b"short"


def test_what_a_kill_left_behind_is_written_over(tmp_path: Path) -> None:
    (tmp_path / f"file{durable.TEMPORARY_SUFFIX}").write_bytes(b"left by a kill, and longer")
    assert durable.write_file(tmp_path / "file", b"new") == hashlib.sha256(b"new").hexdigest()
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_everything_is_synced_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    durable.write_file(tmp_path / "file", b"data")
    assert calls == ["file", "rename", "folder"]


def test_modes_are_the_umasks(tmp_path: Path, umask: int) -> None:
    durable.write_file(tmp_path / "written", b"data")
    durable.append(tmp_path / "appended", b"data")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


class Dripping:
    """A stream that takes at most three bytes at a time, as a pipe or a full disk may."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: memoryview) -> int:
        self.data += bytes(data[:3])
        return min(3, len(data))


def test_short_writes_are_gone_on_with() -> None:
    stream: Any = Dripping()
    file = durable.HashedFile(stream)
    file.write(b"ten bytes!")
    file.write(b"")
    assert stream.data == b"ten bytes!"
    assert (file.num_bytes, file.sha256) == (10, hashlib.sha256(b"ten bytes!").hexdigest())


def test_buffers_of_any_shape_are_written_as_their_bytes(tmp_path: Path) -> None:
    values = torch.arange(6, dtype=torch.int32).view(2, 3).numpy()
    durable.write_file(tmp_path / "file", values.data)
    assert (tmp_path / "file").read_bytes() == values.tobytes()


def test_appending_creates_and_then_adds(tmp_path: Path) -> None:
    durable.append(tmp_path / "file", b"one ")
    durable.append(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one two"


def test_folders_are_made_with_their_parents_and_made_again_without_complaint(tmp_path: Path) -> None:
    for _ in range(2):
        durable.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_tree_is_synced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.make_folder(tmp_path / "tree" / "inner")
    for name in ("one", "inner/two"):
        (tmp_path / "tree" / name).write_bytes(b"data")
    synced: set[int] = set()
    fsync: Callable[[int], None] = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    durable.sync_tree(tmp_path / "tree")
    expected = ["tree", "tree/one", "tree/inner", "tree/inner/two", "."]
    assert synced == {(tmp_path / name).stat().st_ino for name in expected}


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert digests.sha256(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()


def test_a_file_grows_by_parts_with_one_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"of an earlier run, and longer than what comes")
    with durable.appended_file(path, None) as file:
        file.write(b"first, ")
    with path.open("ab") as stream:
        stream.write(b"what a kill left")
    with durable.appended_file(path, file.prefix) as grown:
        grown.write(b"second")
    assert path.read_bytes() == b"first, second"
    assert (grown.num_bytes, grown.sha256) == (13, hashlib.sha256(b"first, second").hexdigest())
    read = digests.hash_prefix(path, 7)
    assert (read.num_bytes, read.sha256) == (7, file.sha256)
    assert digests.hash_prefix(path, 99).num_bytes == 13


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt(), ValueError("a bug")])
def test_after_an_error_a_file_ends_where_it_did(tmp_path: Path, error: BaseException, *, begun: bool) -> None:
    path, before = tmp_path / "file", None
    if begun:
        with durable.appended_file(path, None) as file:
            file.write(b"first, ")
        before = file.prefix

    def write() -> None:
        with durable.appended_file(path, before) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == (["file"] if begun else [])
    assert not begun or path.read_bytes() == b"first, "
