"""Which file of a checkpoint folder has which tensor."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from regstream.checkpoint.header import TensorSpec, read_header
from regstream.checkpoint.source import LOCAL, Source
from regstream.errors import InputError
from regstream.storage.json_file import read_json_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLED = "which is pickled and is not read; convert it to safetensors"
#: Endings of other weights, the most likely first, and what to do about them.
_OTHER_WEIGHTS = {
    "adapter_model.safetensors": "the weights of an adapter; name the folder as `adapter` instead of `model`",
    ".safetensors": f"which is not called as transformers calls it; rename it to {SINGLE}, or write an index",
    ".gguf": "which is quantized or converted for llama.cpp; name the checkpoint in safetensors that it was made from",
    ".bin": _PICKLED,
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".ckpt": _PICKLED,
    ".h5": "weights for TensorFlow; convert them to safetensors",
    ".msgpack": "weights for Flax; convert them to safetensors",
}


def read_tensor_index(folder: Path, source: Source = LOCAL) -> dict[str, TensorSpec]:
    """Every tensor of a checkpoint by its name in the files; reads headers, no weights.

    Raises:
        InputError: the folder has no safetensors checkpoint, or index and files disagree.
    """
    names = source.list_files(folder)
    if INDEX in names:
        return _from_index(folder, names, source)
    if SINGLE in names:
        return read_header(folder / SINGLE, source)
    raise InputError(f"{folder}: expected {SINGLE} or {INDEX}, found {_found_instead(names)}")


def unindexed_files(folder: Path, source: Source = LOCAL) -> list[str]:
    """Files with the names of shards that the index does not list, and that are not read."""
    names = source.list_files(folder)
    if INDEX not in names:
        return []
    indexed = set(_weight_map(folder / INDEX).values())
    return sorted(name for name in names if (name == SINGLE or _SHARD.fullmatch(name)) and name not in indexed)


def _found_instead(names: Iterable[str]) -> str:
    """Describes the weights that a folder has instead of a checkpoint, and what to do."""
    for ending, advice in _OTHER_WEIGHTS.items():
        found = sorted(name for name in names if name.endswith(ending))
        if found and _SHARD.fullmatch(found[0]):
            return f"only {found[0]}, a shard without the index; is the download complete?"
        if found:
            return f"only {found[0]}, {advice}"
    return "neither"


def _from_index(folder: Path, names: Collection[str], source: Source) -> dict[str, TensorSpec]:
    index = folder / INDEX
    weight_map = _weight_map(index)
    file_names = sorted(set(weight_map.values()))
    for file_name in file_names:
        if Path(file_name).name != file_name or not file_name.endswith(".safetensors"):
            raise InputError(f'{index}: names "{file_name}"; expected a .safetensors file in the same folder')
        if file_name not in names:
            raise InputError(f"{index}: names {file_name}, which is not there; is the download complete?")
    source.fetch_prefixes([folder / file_name for file_name in file_names])
    tensor_index: dict[str, TensorSpec] = {}
    for file_name in file_names:
        header = read_header(folder / file_name, source)
        for name in sorted(header.keys() & tensor_index.keys()):
            raise InputError(f"{folder}: tensor {name} is in two files, {tensor_index[name].file.name} and {file_name}")
        tensor_index |= header
    source.fetch_prefixes(())
    for name, file_name in weight_map.items():
        if name not in tensor_index:
            raise InputError(f"{index}: names tensor {name}, which no file holds; expected it in {file_name}")
        if tensor_index[name].file.name != file_name:
            raise InputError(f"{index}: tensor {name} is in {tensor_index[name].file.name}, not in {file_name}")
    return tensor_index


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index, "a checkpoint index").get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map and all(isinstance(v, str) for v in weight_map.values())):
        raise InputError(f"{index}: its weight_map is not a table of tensor names and file names")
    return weight_map
