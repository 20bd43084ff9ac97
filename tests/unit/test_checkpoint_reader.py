"""Reading tensors: equal to the library's own load, into any buffer, and never silently the wrong thing."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from regstream.checkpoint.header import DTYPES, read_header
from regstream.checkpoint.reader import TensorReader
from regstream.errors import InputError

FLOATING = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]


def values(*shape: int, seed: int = 0) -> Tensor:
    return 10 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, tensors: dict[str, Tensor], name: str = "file.safetensors") -> TensorReader:
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return TensorReader("candidate math", read_header(folder / name))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_read_as_the_library_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    written = {"a": values(5, 3).to(dtype), "b": values(7).to(dtype), "scalar": values().to(dtype)}
    reader = saved(tmp_path, {**written, "empty": values(0, 3).to(dtype)})
    into = {name: torch.zeros(spec.shape, dtype=dtype) for name, spec in reader.tensors.items()}
    reader.read(into)
    for name, tensor in load_file(tmp_path / "file.safetensors").items():
        assert torch.equal(into[name], tensor)


@pytest.mark.parametrize("stored", FLOATING, ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [13, 1301], ids=["at once", "in pieces"])
def test_a_tensor_is_cast_on_the_way_as_torch_casts_it(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, rows: int
) -> None:
    tensor = values(rows, 3001).to(stored)
    into = torch.zeros(rows, 3001, dtype=wanted)
    saved(tmp_path, {"a": tensor}).read({"a": into})
    assert torch.equal(into, tensor.to(wanted))


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_a_buffer_with_fewer_rows_takes_the_first(tmp_path: Path, wanted: torch.dtype) -> None:
    tensor, into = values(9, 4), torch.zeros(6, 4, dtype=wanted)
    saved(tmp_path, {"a": tensor}).read({"a": into})
    assert torch.equal(into, tensor[:6].to(wanted))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_a_stretch_is_read_from_where_it_begins(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype) -> None:
    tensor, into = values(9, 4).to(stored), torch.zeros(11, dtype=wanted)
    reader = saved(tmp_path, {"before": values(3), "a": tensor})
    reader.read_range("a", 5, into)
    assert torch.equal(into, tensor.flatten()[5:16].to(wanted))
    assert reader.num_bytes_read == 11 * stored.itemsize


def test_what_was_read_is_counted_to_the_byte_and_only_what_was_asked_for_is_read(tmp_path: Path) -> None:
    reader = saved(tmp_path, {"a": values(5, 3), "b": values(100).bfloat16(), "c": values(7)})
    reader.read({"b": torch.zeros(100), "a": torch.zeros(2, 3)})
    assert reader.num_bytes_read == 100 * 2 + 6 * 4
    reader.read({"c": torch.zeros(7)})
    assert reader.num_bytes_read == 100 * 2 + 6 * 4 + 7 * 4


def test_tensors_of_several_files_come_from_the_right_ones(tmp_path: Path) -> None:
    first, second = (
        saved(tmp_path, {"a": values(3), "c": values(4)}),
        saved(tmp_path, {"b": values(5, seed=1)}, "second"),
    )
    reader = TensorReader("base", {**first.tensors, **second.tensors})
    into = {name: torch.zeros(reader.tensors[name].shape) for name in ("c", "b", "a")}
    reader.read(into)
    expected = load_file(tmp_path / "file.safetensors") | load_file(tmp_path / "second")
    assert all(torch.equal(into[name], expected[name]) for name in into)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("position", [0, 7, 14])
def test_a_weight_that_is_not_finite_is_refused_by_every_name(
    tmp_path: Path, value: float, dtype: torch.dtype, position: int
) -> None:
    tensor = values(5, 3).to(dtype)
    tensor.view(-1)[position] = value
    reader = saved(tmp_path, {"fine": values(3), "bad": tensor})
    reader.read({"fine": torch.zeros(3)})
    for wanted in (torch.float32, dtype):
        with pytest.raises(InputError, match="tensor bad contains NaN or infinite") as caught:
            reader.read({"fine": torch.zeros(3), "bad": torch.zeros(5, 3, dtype=wanted)})
        assert str(caught.value).startswith(f"candidate math: {tmp_path / 'file.safetensors'}: ")


def test_what_lies_outside_the_rows_that_are_read_is_nobodys_concern(tmp_path: Path) -> None:
    tensor = values(5, 3)
    tensor[4, 0] = float("nan")
    saved(tmp_path, {"a": tensor}).read({"a": torch.zeros(4, 3)})


def test_a_file_that_vanished_is_refused_by_name(tmp_path: Path) -> None:
    reader = saved(tmp_path, {"a": values(3)})
    (tmp_path / "file.safetensors").unlink()
    with pytest.raises(InputError, match=r"candidate math: .*file.safetensors: No such file"):
        reader.read({"a": torch.zeros(3)})


@pytest.mark.parametrize("wanted", [torch.float32, torch.float64])
def test_a_file_that_was_shortened_is_refused_by_tensor(tmp_path: Path, wanted: torch.dtype) -> None:
    reader = saved(tmp_path, {"a": values(3), "b": values(50, seed=1)})
    file = tmp_path / "file.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    reader.read({"a": torch.zeros(3)})
    with pytest.raises(InputError, match=r"candidate math: .*file.safetensors: ends inside tensor b"):
        reader.read({"b": torch.zeros(50, dtype=wanted)})


def test_a_file_is_opened_once_while_it_is_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = saved(tmp_path, {"a": values(5), "b": values(7)})
    opened: list[object] = []
    open_file = os.open

    def counting(path: str, flags: int) -> int:
        opened.append(path)
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", counting)
    for num_opened in (1, 2):  # once within each context
        with reader.keep_open():
            for name, start in (("a", 0), ("b", 2), ("a", 3)):
                reader.read_range(name, start, torch.empty(2))
        assert len(opened) == num_opened
    reader.read({"a": torch.empty(5)})
    assert len(opened) == 3
