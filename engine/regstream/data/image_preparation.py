"""Images decoded and prepared for a model, one at a time, by the processor that is beside the base."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from transformers import AutoImageProcessor

from regstream.data.images import Encoded
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_folder, check_regular

_SETTINGS = ("preprocessor_config.json", "processor_config.json")
_SIZES = ("size", "crop_size", "pad_size")
#: What is decoded by PIL itself; PostScript, which others of its plugins read, is a program.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_WIDE_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
#: By the orientation in EXIF data.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
#: Above this PIL warns of images that fill the memory.
_MAX_PIXELS = 89_478_485
#: A pixel as it is decoded, converted to RGB, copied for the processor, and resized: measured at most 19 (CMYK).
_PIXEL_BYTES = 20
_MAX_SETTINGS_BYTES = 16 << 20
#: A processor resizes to a little more than the model reads, and crops.
_MAX_ENLARGEMENT = 8
_LEAST_BOUND = 1024


class PreparedImages:
    """Images, prepared for a model that reads `expected` (C, H, W), by the processor that is beside the base."""

    def __init__(self, path: Path, images: Encoded, base: Path, expected: Sequence[int]) -> None:
        self._path = path
        self._images = images
        self._expected = tuple(expected)
        settings = next((base / name for name in _SETTINGS if (base / name).exists()), None)
        if settings is None:
            raise InputError(
                f"{base}: no {_SETTINGS[0]}; without it images cannot be prepared as the base expects them"
            )
        with error_boundary(f"{settings}"):
            self._settings = check_regular(settings, _MAX_SETTINGS_BYTES).read_bytes()
            check_folder(base)
            self._edge = _largest_size(settings, json.loads(self._settings), self._expected)
            load: Any = AutoImageProcessor.from_pretrained  # untyped
            self._processor = load(base, local_files_only=True, trust_remote_code=False)
        self._prepare(f"{settings}", Image.new("RGB", (self._expected[2], self._expected[1])))
        self._most_pixels = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def decoding_bytes(self) -> int:
        """What decoding and preparing the largest image takes, of those a digest was taken of."""
        return self._most_pixels * _PIXEL_BYTES

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """`pixel_values` (rows, C, H, W), float32.

        Raises:
            InputError: an image cannot be read, or is not prepared to what the model reads.
        """
        prepared = torch.empty(len(rows), *self._expected)
        for index, row in enumerate(rows):
            place, encoded = self._images.encoded(row)
            prepared[index] = self._prepare(f"{self._path}, {place}", self._decode(place, encoded))
        return prepared

    def digest(self, rows: Sequence[int]) -> bytes:
        """Of the encoded images and of how they are prepared; each is decoded once, to be found damaged now if ever."""
        digest = hashlib.sha256(self._settings)
        for row in rows:
            place, encoded = self._images.encoded(row)
            width, height = self._decode(place, encoded).size
            self._most_pixels = max(self._most_pixels, width * height, self._resized_pixels(width, height))
            digest.update(hashlib.sha256(encoded).digest())
        return digest.digest()

    def labels(self, rows: Sequence[int]) -> list[int]:
        """The class of some of them.

        Raises:
            InputError: they have none.
        """
        return [self._images.label(row) for row in rows]

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The folders that classes are, in the order of the labels; none where labels are numbers."""
        return self._images.class_folders

    def _decode(self, place: str, encoded: bytes) -> Image.Image:
        with error_boundary(f"{self._path}, {place}: no image that can be read"):
            Image.init()  # all plugins, which some builds lack some of
            formats = [name for name in _FORMATS if name in Image.OPEN]
            image = _opened(encoded, formats)
            width, height = image.size
            most = max(width * height, self._resized_pixels(width, height))
            if most > _MAX_PIXELS:
                raise InputError(
                    f"{self._path}, {place}: {width:,} x {height:,} pixels, prepared by way of {most:,}; expected at"
                    f" most {_MAX_PIXELS:,}; scale or crop the image"
                )
            _check_range(image)
            return _upright(image.convert("RGB"), image)

    def _resized_pixels(self, width: int, height: int) -> int:
        """After its shorter side was scaled to the largest size among the settings, as before a crop."""
        return self._edge**2 * max(width, height) // max(min(width, height), 1)

    def _prepare(self, place: str, image: Image.Image) -> Tensor:
        """An image, (C, H, W)."""
        with error_boundary(f"{place}: the image processor refuses it"):
            prepared: Tensor = self._processor(images=[image], return_tensors="pt")["pixel_values"]
        if not bool(torch.isfinite(prepared).all()):
            raise InputError(f"{place}: the image processor makes values of an image that are NaN or infinite")
        if tuple(prepared.shape) != (1, *self._expected):
            raise InputError(
                f"{place}: the image processor makes {list(prepared.shape[1:])} of an image, the model reads"
                f" {list(self._expected)} (channels, height, width)"
            )
        return prepared[0].to(torch.float32)


def _opened(encoded: bytes, formats: list[str]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=formats)
    except UnidentifiedImageError:  # its text names an object in memory
        size = f"{len(encoded):,} bytes that are none" if encoded else "an empty file"
        raise ValueError(f"expected one of {', '.join(formats)}, found {size}") from None


def _check_range(image: Image.Image) -> None:
    """Refuse wide values, which a conversion to 8 bits cuts off at 255, and fractions, which it makes 0."""
    if image.mode in _WIDE_MODES:
        extrema: Any = image.getextrema()
        low, high = extrema
        if low < 0 or high > 255 or (image.mode == "F" and 0 < high <= 1):
            raise ValueError(f"values from {low:g} to {high:g}; expected 8 bits a channel, 0 to 255: convert it")


def _upright(converted: Image.Image, image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says, as transformers and datasets do when they load one."""
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data says nothing
        return converted
    turn = _TURNS.get(orientation)
    return converted if turn is None else converted.transpose(turn)


def _largest_size(settings: Path, content: Any, expected: Sequence[int]) -> int:
    """The largest size that images are scaled, padded or cropped to.

    Raises:
        InputError: it is far from what the model reads.
    """
    bound = max(_LEAST_BOUND, _MAX_ENLARGEMENT * max(expected[1:]))
    largest = max(expected[1:])
    for name, size in _sizes(content):
        if size > bound:
            raise InputError(f"{settings}: {name} is {size:,}; expected at most {bound:,} for a model of {largest:,}")
        largest = max(largest, int(size))
    return largest


def _sizes(content: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every number that is a size, or within one, by its key."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _sizes(value, f"{name}.{key}" if name else key if key in _SIZES else "")
    elif isinstance(content, list):
        for value in content:
            yield from _sizes(value, name)
    elif name and isinstance(content, int):
        yield name, content
