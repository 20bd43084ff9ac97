"""Images as people keep them, in a folder or in a table's column, encoded in some format."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from regstream.data.row_sources import open_table
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular

#: Of one image as it is encoded.
_MAX_ENCODED_BYTES = 256 << 20
_BATCH_ROWS = 16
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
        with error_boundary(f"{folder}"):
            self._files = sorted(
                (path.relative_to(folder) for path in folder.rglob("*") if _is_image(path)),
                key=lambda path: path.parts,
            )
        self.class_folders = tuple(sorted({path.parts[0] for path in self._files if len(path.parts) > 1}))

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The file's name below the folder, and its bytes."""
        path = self._folder / self._files[index]
        with error_boundary(f"{path}"):
            return self._files[index].as_posix(), check_regular(path, _MAX_ENCODED_BYTES).read_bytes()

    def label(self, index: int) -> int:
        """The place of its outermost folder among those in the images' folder, by name.

        Raises:
            InputError: the file lies in no class's folder.
        """
        parts = self._files[index].parts
        if len(parts) < 2:
            raise InputError(f"{self._folder}: {parts[0]} lies in no class's folder, so that it has no label")
        return self.class_folders.index(parts[0])


def _is_image(path: Path) -> bool:
    # macOS keeps what it knows of a file in one that begins so, and of the same suffix.
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._")


class TableImages:
    """A column of a parquet file: bytes, or as Hugging Face's `datasets` writes them, `bytes` within each value."""

    class_folders: tuple[str, ...] = ()

    def __init__(self, path: Path, field: str, label: str = "label") -> None:
        self._path, self._file = path, open_table(path, (field,))
        self._images, self._field, self._label = _Column(path, self._file, field), field, label

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def encoded(self, index: int) -> tuple[str, bytes]:
        """The row's number, and its bytes; a few rows are held at a time, best asked for in their order."""
        value = self._images[index]
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
        value = self._labels[index]
        if not isinstance(value, int):
            raise InputError(f'row {index + 1}: expected a whole number in "{self._label}", found {str(value)[:40]}')
        return value

    @cached_property
    def _labels(self) -> "_Column":
        return _Column(self._path, self._file, self._label)


class _Column:
    """Values of a parquet file by the numbers of their rows: read on from the last one, or from its group's start."""

    def __init__(self, path: Path, file: Any, name: str) -> None:
        self._path, self._file, self._name = path, file, name
        counts = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        self._starts = list(accumulate(counts, initial=0))
        self._group, self._first = -1, 0
        self._held: Any = ()
        self._rest: Iterator[Any] = iter(())

    def __getitem__(self, index: int) -> Any:
        group = bisect_right(self._starts, index) - 1
        if group != self._group or index < self._first:
            self._group, self._first, self._held = group, self._starts[group], ()
            self._rest = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._name])
        while index >= self._first + len(self._held):
            self._first += len(self._held)
            with error_boundary(f"{self._path}, row {index + 1}"):
                self._held = next(self._rest).column(0)
        return self._held[index - self._first].as_py()
