"""Arguments of forward passes on disk: for each batch a safetensors file, whose metadata holds their structure."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from regstream.storage import durable
from regstream.storage.hidden_states import CorruptActivations
from regstream.storage.run_folder import ARGUMENTS

_KEY = "arguments"  # one key alone: safetensors writes several in random order


class ArgumentStore:
    """The store in a folder of hidden states."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ARGUMENTS

    def write(
        self, candidate: str, index: int, structure: Any, tensors: Mapping[str, Tensor], *, stack: int = 0
    ) -> None:
        """Write what one batch's forward passes through a stack are called with; durable when this returns."""
        path = self._path(candidate, index, stack)
        durable.make_folder(path.parent)
        crc = {name: _crc(tensor) for name, tensor in tensors.items()}
        durable.write_file(path, save(dict(tensors), {_KEY: json.dumps({"structure": structure, "crc": crc})}))

    def read(self, candidate: str, index: int, *, stack: int = 0) -> tuple[Any, dict[str, Tensor]]:
        """The structure and the tensors of a batch.

        Raises:
            CorruptActivations: they are missing or differ from what was written.
        """
        path = self._path(candidate, index, stack)
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()[_KEY])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  no mapping
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptActivations(f"{path}: {error}") from error
        if {name: _crc(tensor) for name, tensor in tensors.items()} != record["crc"]:
            raise CorruptActivations(f"{path}: its values differ from what was written")
        return record["structure"], tensors

    def _path(self, candidate: str, index: int, stack: int) -> Path:
        return self._folder / candidate / (f"{index}-{stack}.safetensors" if stack else f"{index}.safetensors")


def _crc(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data) if tensor.numel() else 0
