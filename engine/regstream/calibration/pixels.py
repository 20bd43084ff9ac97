"""Rows of images, prepared as `pixel_values` (rows, channels, height, width), read a batch at a time."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regstream.batch import Batch
from regstream.calibration.sources import choose
from regstream.calibration.tensors import tensor_rows
from regstream.errors import InputError
from regstream.families import Family
from regstream.manifest import Calibration

_FLOATING = ("F64", "F32", "F16", "BF16")


class PixelRows:
    """Images of a safetensors file; all have the model's size, so nothing is ever padded."""

    def __init__(
        self, path: Path, family: Family, config: Mapping[str, Any], calibration: Calibration, seed: int
    ) -> None:
        self._path = path
        size = int(config["image_size"])
        expected = [int(config.get("num_channels", 3)), size, size]
        with tensor_rows(path, "pixel_values") as pixels:
            shape, dtype = pixels.get_shape(), pixels.get_dtype()
        if len(shape) != 4 or shape[1:] != expected or shape[0] == 0:
            raise InputError(f"{path}: pixel_values has shape {shape}; expected (rows, {str(expected)[1:-1]})")
        if dtype not in _FLOATING:
            raise InputError(f"{path}: pixel_values is {dtype}; expected prepared, floating-point images")
        assert family.tokens_per_row is not None
        num_tokens = family.tokens_per_row(config)
        chosen = choose(shape[0], calibration.rows, seed)
        step = calibration.batch_rows
        self._batches = [chosen[start : start + step] for start in range(0, len(chosen), step)]
        self.batches = tuple(Batch((num_tokens,) * len(rows)) for rows in self._batches)
        self._row_values: int = math.prod(expected)
        self.digest = self._compute_digest()

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    @property
    def input_bytes(self) -> int:
        """Of pixels, at four bytes."""
        return 4 * self._row_values * max(map(len, self._batches))

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`pixel_values` (B, C, H, W) of a batch."""
        return {"pixel_values": self._read(self._batches[index]).to(dtype=dtype, device=device)}

    def _read(self, rows: list[int]) -> Tensor:
        with tensor_rows(self._path, "pixel_values") as pixels:
            return torch.cat([pixels[row : row + 1] for row in rows])

    def _compute_digest(self) -> str:
        digest = hashlib.sha256()
        for rows in self._batches:
            pixels = self._read(rows)
            if not bool(torch.isfinite(pixels).all()):
                raise InputError(f"{self._path}: pixel_values of rows {rows[0]}-{rows[-1]} hold NaN or infinite values")
            digest.update(f"batch {tuple(pixels.shape)} {pixels.dtype}\n".encode())
            digest.update(pixels.view(torch.uint8).numpy().data)
        return digest.hexdigest()
