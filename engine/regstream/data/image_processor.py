"""Images decoded, and preprocessed for the model with the image processor of the base, one at a time."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from regstream.data.decode_image import PIXEL_BYTES, decode_image
from regstream.data.encoded_images import EncodedImages
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_folder, check_regular

_SETTINGS = ("preprocessor_config.json", "processor_config.json")
_SIZES = ("size", "crop_size", "pad_size")
_MAX_SETTINGS_BYTES = 16 << 20
#: Processors resize to slightly more than the model's size, then crop.
_MAX_ENLARGEMENT = 8
_MIN_SIZE_BOUND = 1024


class ProcessedImages:
    """Images preprocessed to the shape `expected`, (C, H, W), with the base's image processor."""

    def __init__(self, path: Path, images: EncodedImages, base: Path, expected: Sequence[int]) -> None:
        self._path = path
        self._images = images
        self.class_folders = images.class_folders
        self._expected = tuple(expected)
        settings = next((base / name for name in _SETTINGS if (base / name).exists()), None)
        if settings is None:
            raise InputError(f"{base}: no {_SETTINGS[0]}; without it images cannot be preprocessed as the base expects")
        with error_boundary(f"{settings}"):
            self._settings = check_regular(settings, _MAX_SETTINGS_BYTES).read_bytes()
            check_folder(base)
            self._max_size = _largest_size(settings, json.loads(self._settings), self._expected)
            load: Any = AutoImageProcessor.from_pretrained  # untyped
            self._processor = load(base, local_files_only=True, trust_remote_code=False)
        self._preprocess(f"{settings}", Image.new("RGB", (self._expected[2], self._expected[1])))
        #: Memory for decoding and preprocessing the largest image whose digest was computed.
        self.decoding_bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """`pixel_values` (rows, C, H, W), float32.

        Raises:
            InputError: an image cannot be decoded, or the processor's output does not fit the model.
        """
        prepared = torch.empty(len(rows), *self._expected)
        for index, row in enumerate(rows):
            location, encoded = self._images.encoded(row)
            prepared[index] = self._preprocess(f"{self._path}, {location}", self._decode(location, encoded))
        return prepared

    def digest(self, rows: Sequence[int]) -> bytes:
        """SHA-256 of the encoded images and the settings. Decodes each image, so that a damaged one fails now."""
        digest = hashlib.sha256(self._settings)
        for row in rows:
            location, encoded = self._images.encoded(row)
            width, height = self._decode(location, encoded).size
            num_pixels = max(width * height, self._resized_pixels(width, height))
            self.decoding_bytes = max(self.decoding_bytes, num_pixels * PIXEL_BYTES)
            digest.update(hashlib.sha256(encoded).digest())
        return digest.digest()

    def labels(self, rows: Sequence[int]) -> list[int]:
        """The class of each row's image.

        Raises:
            InputError: an image has no label.
        """
        return [self._images.label(row) for row in rows]

    def _decode(self, location: str, encoded: bytes) -> Image.Image:
        return decode_image(f"{self._path}, {location}", encoded, self._resized_pixels)

    def _resized_pixels(self, width: int, height: int) -> int:
        """Pixels after its shorter side is resized to the largest size in the settings, as before a crop."""
        return self._max_size**2 * max(width, height) // max(min(width, height), 1)

    def _preprocess(self, location: str, image: Image.Image) -> Tensor:
        with error_boundary(f"{location}: the image processor refuses it"):
            prepared: Tensor = self._processor(images=[image], return_tensors="pt")["pixel_values"]
        if not bool(torch.isfinite(prepared).all()):
            raise InputError(f"{location}: the image processor produces NaN or infinite values")
        if tuple(prepared.shape) != (1, *self._expected):
            raise InputError(
                f"{location}: the image processor produces {list(prepared.shape[1:])}, the model reads"
                f" {list(self._expected)} (channels, height, width)"
            )
        return prepared[0].to(torch.float32)


def _largest_size(settings: Path, content: Any, expected: Sequence[int]) -> int:
    """The largest size in the settings that images are resized, padded or cropped to; refuses implausible ones."""
    largest = max(expected[1:])
    bound = max(_MIN_SIZE_BOUND, _MAX_ENLARGEMENT * largest)
    for name, size in _sizes(content):
        if size > bound:
            raise InputError(f"{settings}: {name} is {size:,}; expected at most {bound:,} for a model of {largest:,}")
        largest = max(largest, int(size))
    return largest


def _sizes(content: Any, name: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _sizes(value, f"{name}.{key}" if name else key if key in _SIZES else "")
    elif isinstance(content, list):
        for value in content:
            yield from _sizes(value, name)
    elif name and isinstance(content, int):
        yield name, content
