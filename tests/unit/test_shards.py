"""Shards of a result: the library reads them as they were meant, and a bad one never appears."""

import errno
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import Buffer

from regstream.checkpoint.header import read_header
from regstream.errors import ResumeError
from regstream.storage.durable import HashedFile
from regstream.storage.shards import DTYPE_NAMES, ShardPart, Shards, layout_parts, shard_bytes, write_shard

SHAPES: Mapping[str, tuple[int, ...]] = {"z.weight": (7, 3), "a.weight": (5,), "ä": (), "none": (0, 4)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def values(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, *, rows: int = 100) -> str:
    [whole], shards = layout_parts(path.name, [SHAPES], dtype), Shards(path.parent, {})
    with shards.write(whole) as writer:
        for name, tensor in tensors.items():
            for part in torch.split(tensor.flatten(), rows):
                writer.write(name, part)
    assert shards.digest(whole).num_bytes == path.stat().st_size
    return shards.digest(whole).sha256


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


NAME = "model-00001-of-00001.safetensors"


def parts(*cuts: int, dtype: torch.dtype = torch.bfloat16) -> list[ShardPart]:
    """The shard in parts, cut before these tensors."""
    names, ends = list(SHAPES), (*cuts, len(SHAPES))
    groups = [names[begin:end] for begin, end in zip((0, *cuts), ends, strict=True)]
    return layout_parts(NAME, [{name: SHAPES[name] for name in group} for group in groups], dtype)


def write_part(shards: Shards, part: ShardPart) -> tuple[int, str]:
    with shards.write(part) as writer:
        for name in part.shapes:
            writer.write(name, values()[name])
    return shards.digest(part).num_bytes, shards.digest(part).sha256


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_shard_in_parts_is_the_shard_in_one(tmp_path: Path, cuts: tuple[int, ...], *, restarted: bool) -> None:
    write(tmp_path / "whole", values(), torch.bfloat16)
    shards, begun = Shards(tmp_path, {}), (0, "")
    for part in parts(*cuts):
        if restarted:
            shards = Shards(tmp_path, {NAME: begun})
        begun = write_part(shards, part)
        there = tmp_path / (NAME if part.is_last else f"{NAME}.partial")
        assert begun[0] == part.end == there.stat().st_size
    assert (tmp_path / NAME).read_bytes() == (tmp_path / "whole").read_bytes()
    specs = {name: (spec.begin, spec.end) for name, spec in read_header(tmp_path / NAME).items()}
    assert {name: place for part in parts(*cuts) for name, place in part.extents.items()} == specs


def test_a_shard_that_lacks_parts_is_whole_for_no_one(tmp_path: Path) -> None:
    shards = Shards(tmp_path, {})
    write_part(shards, parts(2)[0])
    assert not (tmp_path / NAME).exists()
    assert shards.path(parts(2)[0]) == tmp_path / f"{NAME}.partial"
    with pytest.raises(Exception, match="incomplete"):
        load_file(tmp_path / f"{NAME}.partial")


def test_a_part_is_written_again_over_what_was_left_of_it(tmp_path: Path) -> None:
    shards, (first, second) = Shards(tmp_path, {}), parts(1)
    write_part(shards, first)
    once = write_part(shards, second)
    whole = (tmp_path / NAME).read_bytes()
    assert write_part(shards, second) == once
    (tmp_path / NAME).write_bytes(whole + b"left by a kill")
    assert write_part(shards, second) == once
    assert (tmp_path / NAME).read_bytes() == whole


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_committed_parts_that_are_not_what_they_were_are_refused(tmp_path: Path, damage: str) -> None:
    begun = write_part(Shards(tmp_path, {}), parts(1)[0])
    path = tmp_path / f"{NAME}.partial"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if damage == "changed" else data[:-3])
    if damage == "gone":
        path.unlink()
    with pytest.raises(ResumeError, match="No such file" if damage == "gone" else f"first {begun[0]:,} bytes are not"):
        write_part(Shards(tmp_path, {NAME: begun}), parts(1)[1])


@pytest.mark.parametrize(("dtype", "is_behind"), [(torch.bfloat16, True), (torch.float32, False)])
def test_what_was_cast_is_written_behind_and_what_is_the_callers_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, is_behind: bool
) -> None:
    released, now = threading.Event(), HashedFile.write

    def held_up(self: HashedFile, data: Buffer) -> None:
        released.wait(5)
        now(self, data)

    values, path = torch.arange(4.0), tmp_path / "shard"
    with write_shard(path, {"w": (4,)}, dtype) as writer:
        growing = path.with_name("shard.partial")
        before = growing.stat().st_size
        monkeypatch.setattr(HashedFile, "write", held_up)
        if not is_behind:
            released.set()
        writer.write("w", values)
        assert (growing.stat().st_size == before) is is_behind
        values.zero_()  # the caller's to change
        released.set()
    assert load_file(path)["w"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_disk_that_refuses_what_is_written_behind_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: HashedFile, data: Buffer) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill() -> None:
        with write_shard(tmp_path / "shard", {"w": (4,)}, torch.float16) as writer:
            monkeypatch.setattr(HashedFile, "write", full)
            writer.write("w", torch.zeros(4))

    with pytest.raises(OSError, match="No space"):
        fill()
    assert list(tmp_path.iterdir()) == []
