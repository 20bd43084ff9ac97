"""Shards of a result: the library reads them as they were meant, and a bad one never appears."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from regstream.checkpoint import read_header
from regstream.shards import DTYPE_NAMES, shard_bytes, write_shard

SHAPES: Mapping[str, tuple[int, ...]] = {"z.weight": (7, 3), "a.weight": (5,), "ä": (), "none": (0, 4)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def values(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, *, rows: int = 100) -> str:
    with write_shard(path, SHAPES, dtype) as writer:
        for name, tensor in tensors.items():
            for part in torch.split(tensor.flatten(), rows):
                writer.write(name, part)
    assert writer.num_bytes == path.stat().st_size
    return writer.sha256


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_the_library_reads_what_was_written(tmp_path: Path, dtype: torch.dtype, rows: int) -> None:
    path = tmp_path / "shard.safetensors"
    write(path, values(), dtype, rows=rows)
    read = load_file(path)
    assert read.keys() == SHAPES.keys()
    for name, tensor in values().items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor.to(dtype))


def test_the_header_is_in_order_aligned_and_says_only_its_format(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    write(path, values(), torch.bfloat16)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    specs = read_header(path)
    assert list(specs) == list(SHAPES)
    assert min(spec.begin for spec in specs.values()) % 8 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_size_is_known_beforehand(tmp_path: Path, dtype: torch.dtype) -> None:
    write(tmp_path / "shard", values(), dtype)
    assert (tmp_path / "shard").stat().st_size == shard_bytes(SHAPES, dtype)


def test_the_bytes_depend_on_nothing_but_the_values(tmp_path: Path) -> None:
    digests = {write(tmp_path / f"shard {rows}", values(), torch.float32, rows=rows) for rows in (1, 3, 3, 100)}
    assert len(digests) == 1
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_rows_of_any_dtype_and_layout_are_cast_once(tmp_path: Path) -> None:
    tensors = values()
    tensors["z.weight"] = torch.randn(3, 7, dtype=torch.float64).T
    path = tmp_path / "shard"
    with write_shard(path, SHAPES, torch.float16) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    assert all(torch.equal(read, tensors[name].half()) for name, read in load_file(path).items())


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, 65536.0),
        (torch.float16, -1e6),
        (torch.bfloat16, 3.4e38),
        (torch.float32, float("inf")),
        *((dtype, float("nan")) for dtype in DTYPES),
    ],
)
@pytest.mark.parametrize("position", [0, 20])
def test_a_value_that_the_dtype_cannot_hold_is_refused(
    tmp_path: Path, dtype: torch.dtype, value: float, position: int
) -> None:
    tensors = values()
    tensors["z.weight"].view(-1)[position] = value
    with pytest.raises(
        OverflowError, match=f"z.weight has values that {str(dtype).removeprefix('torch.')} cannot hold"
    ):
        write(tmp_path / "shard", tensors, dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [65504.0, -65504.0, 1e-30])
def test_the_largest_and_the_smallest_values_are_no_overflow(tmp_path: Path, value: float) -> None:
    tensors = values()
    tensors["a.weight"][2] = value
    write(tmp_path / "shard", tensors, torch.float16)


def cut(number: int) -> dict[str, Tensor]:
    return dict(list(values().items())[:number])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "lacks z.weight, a.weight, ä, none"),
        (cut(2), "lacks ä, none"),
        ({**cut(1), "a.weight": torch.zeros(4)}, "lacks a.weight, ä, none"),
        ({**cut(1), "a.weight": torch.zeros(6)}, "expects 5 values of a.weight, was given 6"),
        ({"a.weight": torch.zeros(5)}, "expects 21 values of z.weight, was given 5 of a.weight"),
        ({**cut(1), "ä": torch.zeros(())}, "expects 5 values of a.weight, was given 1 of ä"),
    ],
)
def test_a_shard_that_is_not_what_was_announced_never_appears(
    tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "shard", tensors, torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_every_dtype_has_a_name_that_is_read_again(tmp_path: Path) -> None:
    for dtype in DTYPE_NAMES:
        write(tmp_path / "shard", values(), dtype)
        assert {spec.dtype for spec in read_header(tmp_path / "shard").values()} == {dtype}
