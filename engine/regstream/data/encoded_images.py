"""Encoded images: the files of a folder, or a column of a parquet file."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from regstream.data.row_reader import open_table
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular

#: Size of one image file.
MAX_IMAGE_BYTES = 256 << 20
_BATCH_ROWS = 16
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class FolderImages:
    """The image files in a folder and its subfolders, sorted by path; `class_folders` in the order of the labels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with error_boundary(f"{folder}"):
            # macOS writes metadata files with the prefix "._" and the same suffix.
            images = (p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and not p.name.startswith("._"))
            self._files = sorted((path.relative_to(folder) for path in images), key=lambda path: path.parts)
        self.class_folders = tuple(sorted({path.parts[0] for path in self._files if len(path.parts) > 1}))

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The file's path relative to the folder, and its bytes."""
        path = self._folder / self._files[index]
        with error_boundary(f"{path}"):
            return self._files[index].as_posix(), check_regular(path, MAX_IMAGE_BYTES).read_bytes()

    def label(self, index: int) -> int:
        """The index of the file's top-level folder among all of them, sorted by name.

        Raises:
            InputError: the file is in no class folder.
        """
        parts = self._files[index].parts
        if len(parts) < 2:
            raise InputError(f"{self._folder}: {parts[0]} is in no class folder, so it has no label")
        return self.class_folders.index(parts[0])


class TableImages:
    """A parquet column of bytes, or of the structs that Hugging Face's `datasets` writes, with a field `bytes`."""

    class_folders: tuple[str, ...] = ()  # labels are numbers

    def __init__(self, path: Path, field: str, label: str = "label") -> None:
        self._file = open_table(path, field)
        self._images, self._labels = TableColumn(path, self._file, field), TableColumn(path, self._file, label)
        self._field, self._label = field, label

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The row's number, and its bytes. Reading rows in order is fastest."""
        value = self._images[index]
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(encoded, bytes):
            raise InputError(f'row {index + 1}: expected an encoded image in "{self._field}", found {str(value)[:40]}')
        return f"row {index + 1}", encoded

    def label(self, index: int) -> int:
        """The value of the label column.

        Raises:
            InputError: the column is missing, or the value is not a whole number.
        """
        if self._label not in self._file.schema_arrow.names:
            raise InputError(f'no column "{self._label}"; there are {", ".join(self._file.schema_arrow.names)}')
        value = self._labels[index]
        if not isinstance(value, int):
            raise InputError(f'row {index + 1}: expected a whole number in "{self._label}", found {str(value)[:40]}')
        return value


EncodedImages = FolderImages | TableImages


class TableColumn:
    """A parquet column, indexed by row. Reads forward from the last row, or from the start of the row's group."""

    def __init__(self, path: Path, file: Any, name: str) -> None:
        self._path, self._file, self._name = path, file, name
        counts = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        self._starts = list(accumulate(counts, initial=0))
        self._group, self._first = -1, 0
        self._values: Any = ()
        self._batches: Iterator[Any] = iter(())

    def __getitem__(self, index: int) -> Any:
        group = bisect_right(self._starts, index) - 1
        if group != self._group or index < self._first:
            self._group, self._first, self._values = group, self._starts[group], ()
            self._batches = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._name])
        while index >= self._first + len(self._values):
            self._first += len(self._values)
            with error_boundary(f"{self._path}, row {index + 1}"):
                self._values = next(self._batches).column(0)
        return self._values[index - self._first].as_py()
