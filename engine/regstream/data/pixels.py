"""Rows of images as the model takes them, `pixel_values` (rows, channels, height, width), made a batch at a time."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.tensor_rows import tensor_rows
from regstream.errors import InputError
from regstream.models.batch import Batch
from regstream.models.family import Family
from regstream.models.images import image_shape

_FLOATING = ("F64", "F32", "F16", "BF16")


class Pixels(Protocol):
    """Where images come from."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Some of them, (rows, C, H, W)."""
        ...

    def digest(self, rows: Sequence[int]) -> bytes:
        """Of some of them, whatever it is that decides their values."""
        ...

    def labels(self, rows: Sequence[int]) -> list[int]:
        """The class of some of them."""
        ...

    @property
    def decoding_bytes(self) -> int:
        """What making one of those takes that a digest was taken of, at most."""
        ...

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The folders that classes are, in the order of the labels; none where labels are numbers."""
        ...


class StoredPixels:
    """Prepared images in a safetensors file."""

    class_folders: tuple[str, ...] = ()
    decoding_bytes = 0

    def __init__(self, path: Path, expected: Sequence[int]) -> None:
        self._path = path
        with tensor_rows(path, "pixel_values") as pixels:
            shape, dtype = pixels.get_shape(), pixels.get_dtype()
        if len(shape) != 4 or shape[1:] != list(expected) or shape[0] == 0:
            raise InputError(f"{path}: pixel_values has shape {shape}; expected (rows, {str(list(expected))[1:-1]})")
        if dtype not in _FLOATING:
            raise InputError(f"{path}: pixel_values is {dtype}; expected prepared, floating-point images")
        self._count = int(shape[0])

    def __len__(self) -> int:
        return self._count

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Rows as they are stored."""
        with tensor_rows(self._path, "pixel_values") as pixels:
            return torch.cat([pixels[row : row + 1] for row in rows])

    def digest(self, rows: Sequence[int]) -> bytes:
        """Of the values.

        Raises:
            InputError: some are NaN or infinite.
        """
        pixels = self.pixels(rows)
        if not bool(torch.isfinite(pixels).all()):
            raise InputError(f"{self._path}: pixel_values of rows {rows[0]}-{rows[-1]} hold NaN or infinite values")
        digest = hashlib.sha256(f"{tuple(pixels.shape)} {pixels.dtype}\n".encode())
        digest.update(pixels.view(torch.uint8).numpy().data)
        return digest.digest()

    def labels(self, rows: Sequence[int]) -> list[int]:
        """From the tensor `labels` (rows,) of the same file.

        Raises:
            InputError: there is none.
        """
        with tensor_rows(self._path, "labels") as labels:
            return [int(labels[row : row + 1]) for row in rows]


class PixelRows:
    """Images in batches; all have the model's size, so nothing is ever padded."""

    def __init__(
        self, source: Pixels, family: Family, config: PreTrainedConfig, chosen: Sequence[int], composition: BatchPolicy
    ) -> None:
        assert family.tokens_per_row is not None
        self._source = source
        num_tokens = family.tokens_per_row(config)
        self._batches = list(composition.batches(chosen, lambda _: num_tokens))
        self.batches = tuple(Batch((num_tokens,) * len(rows)) for rows in self._batches)
        self._row_values = math.prod(image_shape(config))
        self.digest = self.read_digest()

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def read_digest(self) -> str:
        """The digest of what is there now; images are read when they are needed."""
        digest = hashlib.sha256()
        for rows in self._batches:
            digest.update(f"batch {len(rows)}\n".encode() + self._source.digest(rows))
        return digest.hexdigest()

    @property
    def input_bytes(self) -> int:
        """Of pixels, at four bytes."""
        return 4 * self._row_values * max(map(len, self._batches))

    @property
    def decoding_bytes(self) -> int:
        """What decoding and preparing the largest image takes."""
        return self._source.decoding_bytes

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`pixel_values` (B, C, H, W) of a batch."""
        return {"pixel_values": self._source.pixels(self._batches[index]).to(dtype=dtype, device=device)}

    def labels(self, index: int) -> Tensor:
        """The class of each image of a batch, (B,).

        Raises:
            InputError: the images have none.
        """
        return torch.tensor(self._source.labels(self._batches[index]))

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The folders that classes are, in the order of the labels; none where labels are numbers."""
        return self._source.class_folders
