"""Images as people keep them, in a folder or in a table's column, prepared as the processor of the base says."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from regstream.errors import InputError

_SETTINGS = ("preprocessor_config.json", "processor_config.json")
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Encoded(Protocol):
    """Images as bytes of some format."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def encoded(self, index: int) -> tuple[str, bytes]:
        """Where an image stands, and its bytes."""
        ...

    def label(self, index: int) -> int:
        """Its class."""
        ...

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The folders that classes are, in the order of the labels; none where labels are numbers."""
        ...


class FolderImages:
    """The image files in a folder and below, by their paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = sorted(
            (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES),
            key=lambda path: path.parts,
        )
        self.class_folders = tuple(sorted({path.parts[0] for path in self._files if len(path.parts) > 1}))

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The file's name below the folder, and its bytes."""
        return self._files[index].as_posix(), (self._folder / self._files[index]).read_bytes()

    def label(self, index: int) -> int:
        """The place of its outermost folder among those in the images' folder, by name.

        Raises:
            InputError: the file lies in no class's folder.
        """
        parts = self._files[index].parts
        if len(parts) < 2:
            raise InputError(f"{self._folder}: {parts[0]} lies in no class's folder, so that it has no label")
        return self.class_folders.index(parts[0])


class TableImages:
    """A column of a parquet file: bytes, or as Hugging Face's `datasets` writes them, `bytes` within each value."""

    class_folders: tuple[str, ...] = ()

    def __init__(self, path: Path, field: str, label: str = "label") -> None:
        self._file = pq.ParquetFile(path)
        if field not in self._file.schema_arrow.names:
            raise InputError(f'{path}: no column "{field}"; there are {", ".join(self._file.schema_arrow.names)}')
        self._field, self._label = field, label
        groups = (self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups))
        self._places = [(group, row) for group, count in enumerate(groups) for row in range(count)]
        self._held: tuple[tuple[int, str] | None, Any] = (None, None)

    def __len__(self) -> int:
        return len(self._places)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The row's number, and its bytes; one group of rows is held at a time."""
        value = self._value(index, self._field)
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise InputError(f'row {index + 1}: expected an encoded image in "{self._field}", found {str(value)[:40]}')
        return f"row {index + 1}", found

    def label(self, index: int) -> int:
        """From the column of labels, a whole number.

        Raises:
            InputError: there is no such column, or no number in it.
        """
        if self._label not in self._file.schema_arrow.names:
            raise InputError(f'no column "{self._label}"; there are {", ".join(self._file.schema_arrow.names)}')
        value = self._value(index, self._label)
        if not isinstance(value, int):
            raise InputError(f'row {index + 1}: expected a whole number in "{self._label}", found {str(value)[:40]}')
        return value

    def _value(self, index: int, column: str) -> Any:
        group, row = self._places[index]
        if self._held[0] != (group, column):
            self._held = ((group, column), self._file.read_row_group(group, columns=[column]).column(0))
        return self._held[1][row].as_py()


class PreparedImages:
    """Images, prepared for the model by the processor that stands beside the base."""

    def __init__(self, path: Path, images: Encoded, base: Path) -> None:
        self._path = path
        self._images = images
        settings = next((base / name for name in _SETTINGS if (base / name).exists()), None)
        if settings is None:
            raise InputError(
                f"{base}: no {_SETTINGS[0]}; without it images cannot be prepared as the base expects them"
            )
        self._settings = settings.read_bytes()
        try:
            load: Any = AutoImageProcessor.from_pretrained  # untyped
            self._processor = load(base, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{settings}: {' '.join(str(error).split())}") from error

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """`pixel_values` (rows, C, H, W), float32.

        Raises:
            InputError: an image cannot be read.
        """
        opened = [self._open(*self._encoded(row)) for row in rows]
        prepared: Tensor = self._processor(images=opened, return_tensors="pt")["pixel_values"]
        return prepared.to(torch.float32)

    def digest(self, rows: Sequence[int]) -> bytes:
        """Of the encoded images and of how they are prepared; each is decoded once, to be found damaged now if ever."""
        digest = hashlib.sha256(self._settings)
        for row in rows:
            place, encoded = self._encoded(row)
            self._open(place, encoded)
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

    def _encoded(self, row: int) -> tuple[str, bytes]:
        try:
            return self._images.encoded(row)
        except OSError as error:
            raise InputError(f"{self._path}: {error}") from error

    def _open(self, place: str, encoded: bytes) -> Image.Image:
        try:
            return Image.open(io.BytesIO(encoded)).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self._path}, {place}: no image that can be read ({error})") from error
