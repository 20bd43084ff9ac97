"""safetensors headers: what a good one says, and every way in which one can be bad."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from regstream.checkpoint.header import DTYPES, read_header
from regstream.errors import InputError

GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
}


def write(path: Path, header: object, *, data: int = 22, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + b"\0" * data)
    return path


def changed(name: str, **entry: object) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **entry}}


def without(key: str) -> dict[str, Any]:
    return {**GOOD, "a": {name: value for name, value in GOOD["a"].items() if name != key}}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_found_where_the_library_wrote_it(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "first": torch.ones(2, 3).to(dtype),
        "scalar": torch.ones(()).to(dtype),
        "empty": torch.ones(0, 4).to(dtype),
    }
    save_file(tensors, tmp_path / "file.safetensors", metadata={"format": "pt"})
    specs = read_header(tmp_path / "file.safetensors")
    data = (tmp_path / "file.safetensors").read_bytes()
    assert specs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        spec = specs[name]
        assert (spec.dtype, spec.shape, spec.num_bytes) == (dtype, tuple(tensor.shape), tensor.nbytes)
        assert data[spec.begin : spec.end] == bytes(tensor.flatten().view(torch.uint8).tolist())


def test_a_file_without_tensors_is_a_file_without_tensors(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "file", {"__metadata__": {"format": "pt"}}, data=0)) == {}


OF_THE_FILE = {
    "empty": (b"", {"data": 0}, "not a safetensors file"),
    "no JSON": (b"{nothing", {}, "no JSON object"),
    "no UTF-8": (b'{"\xff": 1}', {}, "no JSON object"),
    "a list": (b"[1]", {}, "no JSON object"),
    "a number": (b"12", {}, "no JSON object"),
    "endless nesting": (b"[" * 100_000, {}, "no JSON object"),
    "length beyond the file": (GOOD, {"length": 10_000}, "a header of 10,000 bytes"),
    "length of nonsense": (GOOD, {"length": 2**63}, "a header of 9,223"),
    "length of zero": (GOOD, {"length": 0}, "a header of 0 bytes"),
    "length too short": (GOOD, {"length": 20}, "no JSON object"),
    "truncated": (GOOD, {"data": 21}, "the file is incomplete or damaged"),
    "too long": (GOOD, {"data": 23}, "the file is incomplete or damaged"),
    "name twice": (
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}',
        {"data": 0},
        'key "a" occurs twice',
    ),
}


@pytest.mark.parametrize("kind", OF_THE_FILE)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    header, options, message = OF_THE_FILE[kind]
    file = write(tmp_path / "file.safetensors", header, **options)
    with pytest.raises(InputError, match=message) as caught:
        read_header(file)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize("size", [0, 4, 8, 9])
def test_a_file_that_ends_within_its_header_is_refused(tmp_path: Path, size: int) -> None:
    file = write(tmp_path / "file", GOOD)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match="not a safetensors file"):
        read_header(file)


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "is the download complete"), (".", "expected a regular file, found a folder")]
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_header(tmp_path / name)


OF_A_TENSOR = {
    "hole": (changed("b", data_offsets=[18, 24]), 24, "b begins at byte"),
    "hole before the first": ({"b": {**GOOD["b"], "data_offsets": [2, 8]}}, 8, "b begins at byte"),
    "overlap": (changed("b", data_offsets=[10, 16]), 16, "b begins at byte"),
    "unknown dtype": (changed("a", dtype="F4"), 22, "a: dtype F4 is not supported"),
    "dtype of a wrong type": (changed("a", dtype=["F32"]), 22, "a: "),
    "dtype missing": (without("dtype"), 22, "a: damaged header entry"),
    "shape missing": (without("shape"), 22, "a: damaged header entry"),
    "offsets missing": (without("data_offsets"), 22, "a: damaged header entry"),
    "wrong size": (changed("a", shape=[2, 3]), 22, r"a: 16 bytes where \[2, 3\] in F32 needs 24"),
    "negative length": (changed("a", shape=[-2, -2]), 22, "a: damaged header entry"),
    "fraction": (changed("a", shape=[2.0, 2]), 22, "a: damaged header entry"),
    "shape no list": (changed("a", shape=4), 22, "a: damaged header entry"),
    "one offset": (changed("a", data_offsets=[0]), 22, "a: damaged header entry"),
    "three offsets": (changed("a", data_offsets=[0, 16, 22]), 22, "a: damaged header entry"),
    "offsets backwards": (changed("a", data_offsets=[16, 0]), 22, "a: -16 bytes"),
    "text for an offset": (changed("a", data_offsets=["0", "16"]), 22, "a: damaged header entry"),
    "no table": ({**GOOD, "a": 7}, 22, "a: damaged header entry"),
    "null": ({**GOOD, "a": None}, 22, "a: damaged header entry"),
}


@pytest.mark.parametrize("kind", OF_A_TENSOR)
def test_a_bad_entry_is_refused_by_file_and_tensor(tmp_path: Path, kind: str) -> None:
    header, data, message = OF_A_TENSOR[kind]
    file = write(tmp_path / "file.safetensors", header, data=data)
    with pytest.raises(InputError, match=f"tensor {message}") as caught:
        read_header(file)
    assert str(caught.value).startswith(f"{file}: tensor ")
