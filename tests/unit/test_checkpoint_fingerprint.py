"""Fingerprints: what the full one sees, what the fast one sees, and how little of a file it reads."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regstream.checkpoint.header import read_header
from regstream.checkpoint.source import LOCAL
from regstream.errors import InputError

LARGE = 16 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse file: its size and content are real, its blocks are not."""
    path = tmp_path_factory.mktemp("large") / "file"
    with path.open("wb") as stream:
        stream.truncate(LARGE)
    return path


def change(path: Path, offset: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        old = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([old ^ 1]))


def is_seen(path: Path, offset: int, *, full: bool) -> bool:
    before = LOCAL.fingerprint(path, full=full)
    change(path, offset)
    after = LOCAL.fingerprint(path, full=full)
    change(path, offset)
    assert LOCAL.fingerprint(path, full=full) == before
    return before != after


@pytest.mark.parametrize("offset", [0, 7, 4096, (64 << 10) - 1, LARGE - (64 << 10), LARGE - 1])
def test_a_changed_header_or_end_is_seen_by_both(large: Path, offset: int) -> None:
    assert is_seen(large, offset, full=False)
    assert is_seen(large, offset, full=True)


def test_any_byte_is_seen_by_the_full_one_alone(large: Path) -> None:
    offset = (64 << 10) + 100  # between the first sample and the second
    assert is_seen(large, offset, full=True)
    assert not is_seen(large, offset, full=False)


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000])
def test_every_byte_of_a_small_file_is_seen_by_both(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    for full in (False, True):
        assert all(is_seen(path, offset, full=full) for offset in range(0, size, max(1, size // 5)))


@pytest.mark.parametrize("full", [False, True])
def test_a_file_of_another_size_is_another_file(tmp_path: Path, *, full: bool) -> None:
    path = tmp_path / "file"
    seen = set()
    for size in (0, 10, 11, LARGE, LARGE + 1):
        with path.open("wb") as stream:
            stream.truncate(size)
        seen.add(str(LOCAL.fingerprint(path, full=full)))
    assert len(seen) == 5


def test_the_fast_one_does_not_read_the_whole_file(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, length, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    LOCAL.fingerprint(large, full=False)
    assert 0 < read <= 64 * (64 << 10) + 8 < LARGE / 2


@pytest.mark.slow
def test_every_tensor_has_a_sample_in_it(tmp_path: Path) -> None:
    """Of many small ones behind a large one: the samples spread evenly lie 300 KiB apart."""
    path, sizes = tmp_path / "model.safetensors", [LARGE, *[20_000] * 60, 5, 1, 0, LARGE // 8]
    save_file({f"{index:03}": torch.zeros(size, dtype=torch.uint8) for index, size in enumerate(sizes)}, path)
    for name, spec in read_header(path).items():
        if spec.num_bytes:
            assert is_seen(path, (spec.begin + spec.end) // 2, full=False), name


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"data_offsets": [1e400, 2]}}', b'{"a": {"data_offsets": "x"}}',
               b'{"a": {"data_offsets": [-5, 5]}}', b'{"a": {"data_offsets": [0, 99999999999]}}', b"[" * 9999]
)  # fmt: skip
def test_a_file_that_is_no_safetensors_file_has_a_fingerprint_too(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, LARGE)
    assert is_seen(path, LARGE - 1, full=False)


def test_the_two_are_never_taken_for_each_other(large: Path) -> None:
    assert list(LOCAL.fingerprint(large, full=False)) == ["fast"]
    assert list(LOCAL.fingerprint(large, full=True)) == ["fast", "full"]


@pytest.mark.parametrize("full", [False, True])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, *, full: bool) -> None:
    with pytest.raises(InputError, match=r"absent: No such file"):
        LOCAL.fingerprint(tmp_path / "absent", full=full)
