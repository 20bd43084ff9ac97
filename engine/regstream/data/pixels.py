"""Batches of images as `pixel_values`, (B, C, H, W), read when they are needed."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.tensor_rows import open_tensor
from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.config.image_sizes import image_shape
from regstream.models.row_costs import RowCosts

if TYPE_CHECKING:
    from regstream.data.image_processor import ProcessedImages

_FLOATING = ("F64", "F32", "F16", "BF16")


class StoredPixels:
    """Preprocessed images in a safetensors file."""

    class_folders: tuple[str, ...] = ()  # labels are numbers
    decoding_bytes = 0

    def __init__(self, path: Path, expected: Sequence[int]) -> None:
        self._path = path
        with open_tensor(path, "pixel_values") as pixels:
            shape, dtype = pixels.get_shape(), pixels.get_dtype()
        if len(shape) != 4 or shape[1:] != list(expected) or shape[0] == 0:
            raise InputError(f"{path}: pixel_values has shape {shape}; expected (rows, {str(list(expected))[1:-1]})")
        if dtype not in _FLOATING:
            raise InputError(f"{path}: pixel_values is {dtype}; expected preprocessed, floating-point images")
        self._num_images = int(shape[0])

    def __len__(self) -> int:
        return self._num_images

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """The images at these indices, in the stored dtype."""
        with open_tensor(self._path, "pixel_values") as pixels:
            return torch.cat([pixels[row : row + 1] for row in rows])

    def digest(self, rows: Sequence[int]) -> bytes:
        """SHA-256 of the shape, dtype and values.

        Raises:
            InputError: a value is NaN or infinite.
        """
        pixels = self.pixels(rows)
        if not bool(torch.isfinite(pixels).all()):
            raise InputError(f"{self._path}: pixel_values of rows {rows[0]}-{rows[-1]} hold NaN or infinite values")
        digest = hashlib.sha256(f"{tuple(pixels.shape)} {pixels.dtype}\n".encode())
        digest.update(pixels.view(torch.uint8).numpy().data)
        return digest.digest()

    def labels(self, rows: Sequence[int]) -> list[int]:
        """Read the tensor `labels`, (rows,), of the same file.

        Raises:
            InputError: the file lacks it.
        """
        with open_tensor(self._path, "labels") as labels:
            return [int(labels[row : row + 1]) for row in rows]


class PixelRows:
    """Images in batches. All have the model's size, so batches have no padding."""

    is_in_memory = False
    targets: tuple[Batch, ...] = ()
    records_arguments = False
    largest = (0,)
    costs = RowCosts()

    def __init__(
        self,
        source: "StoredPixels | ProcessedImages",
        architecture: Architecture,
        config: PreTrainedConfig,
        indices: Sequence[int],
        batch_policy: BatchPolicy,
    ) -> None:
        assert architecture.row_tokens is not None
        self._source = source
        self.class_folders = source.class_folders
        num_tokens = architecture.row_tokens
        self._batches = list(batch_policy.batches(indices, lambda _: num_tokens))
        self.batches = tuple(Batch((num_tokens,) * len(rows)) for rows in self._batches)
        #: Bytes of the largest batch in float32.
        self.input_bytes = 4 * math.prod(image_shape(config)) * max(map(len, self._batches))
        self.digest = self.read_digest()
        #: Memory for decoding and preprocessing the largest image.
        self.decoding_bytes = source.decoding_bytes

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def read_digest(self) -> str:
        """Compute the digest anew, to detect files that changed since."""
        digest = hashlib.sha256()
        for rows in self._batches:
            digest.update(f"batch {len(rows)}\n".encode() + self._source.digest(rows))
        return digest.hexdigest()

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """The forward's arguments: `pixel_values` (B, C, H, W)."""
        return {"pixel_values": self._source.pixels(self._batches[index]).to(dtype=dtype, device=device)}

    def labels(self, index: int) -> Tensor:
        """The class of each image of a batch, (B,).

        Raises:
            InputError: an image has no label.
        """
        return torch.tensor(self._source.labels(self._batches[index]))
