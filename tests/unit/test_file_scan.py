"""One read of a file gives its digest and the tensors that are not finite, however they lie in it."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regstream.storage.file_scan import ScanStopped, scan_file

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
VALUES = (3 << 20) // 2 + 5  # several pieces in any dtype, the last one odd


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_is_found_anywhere(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    largest = torch.finfo(dtype).max
    for position in (0, 1 << 17, (1 << 20) // dtype.itemsize, VALUES - 1):
        tensors = {name: torch.full((VALUES,), sign * largest, dtype=dtype) for name, sign in (("a", 1), ("b", -1))}
        tensors["c"] = torch.ones(3, dtype=dtype)
        assert scan_file(write(tmp_path / "file", tensors)).nonfinite == ()
        tensors["b"][position] = value
        scan = scan_file(write(tmp_path / "file", tensors))
        assert scan.nonfinite == ("b",)
        assert scan.sha256 == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_bits_of_integers_are_no_infinity(tmp_path: Path) -> None:
    tensors = {"a": torch.full((9,), -1, dtype=torch.int64), "b": torch.full((3,), 255, dtype=torch.uint8)}
    assert scan_file(write(tmp_path / "file", tensors | {"c": torch.zeros(0)})).nonfinite == ()


def header(**entries: object) -> bytes:
    text = json.dumps(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": at} for name, at in entries.items()}
    ).encode()
    return len(text).to_bytes(8, "little") + text + b"\xff" * 16


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"\xff" * 8, b"\xff" * 100, b"{}", os.urandom(3 << 20), bytes(8) + b"{}",
        (2).to_bytes(8, "little") + b"[]", (2).to_bytes(8, "little") + b"{}\xff\xff",
        header(a=[0, 7]), header(a=[8, 0]), header(a=[4, 12]), header(a=[0, 8], b=[4, 12]), header(a="0"),
        header(a=[0, 20]), header(a=[0, 10**30]),
    ],
)  # fmt: skip
def test_the_digest_is_that_of_any_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    scan = scan_file(tmp_path / "file")
    assert scan.sha256 == hashlib.sha256(content).hexdigest()
    assert scan.nonfinite == ()


def test_a_scan_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    answers = iter([False, True])
    with pytest.raises(ScanStopped):
        scan_file(tmp_path / "file", lambda: next(answers))
