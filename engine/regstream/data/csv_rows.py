"""Rows of a .csv file: its first line names the fields. Memory holds one row at a time."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.storage.regular_file import check_regular

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def csv_rows(path: Path, max_chars: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row, with its location; lines that are blank are none.

    Raises:
        InputError: the file has no header, a row has not as many fields as it, or more than `max_chars`.
    """
    csv.field_size_limit(max_chars)
    lines = _Lines(path, max_chars)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        while header == []:
            header = next(reader, None)
        if header is None:
            raise InputError(f"{path}: no rows; the first line names the fields")
        _check_header(path, header)
        lines.begin_row()
        for fields in reader:
            where = f"line {lines.first}"
            if len(fields) not in (0, len(header)):
                raise InputError(
                    f"{path}, {where}: {len(fields)} field{'s' * (len(fields) > 1)}, and the header names"
                    f" {len(header)}; put a field with commas or line breaks in double quotes"
                )
            if fields:
                yield where, dict(zip(header, fields, strict=True))
            lines.begin_row()
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.number}: not CSV: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f'{path}, line 1: the header names "{repeated}" twice; the first line names the fields')
    other = next((name for char, name in _OTHER_DELIMITERS.items() if len(header) == 1 and char in header[0]), None)
    if other is not None:
        raise InputError(f"{path}, line 1: fields are separated by {other}; separate them by commas")


class _Lines:
    """The lines of the file, for a reader that takes as many as a row has."""

    def __init__(self, path: Path, max_chars: int) -> None:
        self._path, self._max_chars = path, max_chars
        self.number, self.first, self._num_chars = 0, 1, 0

    def begin_row(self) -> None:
        """The next line begins a row."""
        self.first, self._num_chars = self.number + 1, 0

    def __iter__(self) -> Iterator[Any]:
        with check_regular(self._path).open(encoding="utf-8-sig", newline="") as stream:
            while line := stream.readline(self._max_chars + 1):
                self.number += 1
                self._num_chars += len(line)
                if self._num_chars > self._max_chars:
                    raise InputError(
                        f"{self._path}, line {self.first}: a row of more than {self._max_chars >> 20} MiB; split it"
                        " into shorter ones, or close its double quotes"
                    )
                yield line
