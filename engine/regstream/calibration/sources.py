"""Rows as they stand in a file, with where each one stands."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from regstream.errors import InputError

_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Row:
    """A row's value and its place ("math.jsonl, line 7")."""

    place: str
    value: Any


def choose(num_rows: int, wanted: int | None, seed: int) -> list[int]:
    """Which of `num_rows` rows to take: all, or `wanted` drawn by the seed, in their order."""
    if wanted is None or wanted >= num_rows:
        return list(range(num_rows))
    return sorted(random.Random(seed).sample(range(num_rows), wanted))  # noqa: S311


def count_rows(path: Path) -> int:
    """How many rows a file of text holds: lines that are not blank, or a table's rows.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def columns_of(field: str) -> tuple[str, ...]:
    """The fields that a row is made of: those in braces, or where there are none the one that is named."""
    return tuple(dict.fromkeys(_COLUMN.findall(field))) or (field,)


def read_rows(path: Path, field: str, chosen: list[int]) -> Iterator[Row]:
    """The chosen rows' values of `field`, in order; a .txt file has one row a line.

    A field may also be a text with fields in braces, "{question}\\n{answer}", which each row then fills in.

    Raises:
        InputError: the file cannot be read, a line is no JSON object, a row has no such field, or no text in one that
            goes into a text.
    """
    try:
        rows = _parquet(path, field) if path.suffix == ".parquet" else _lines(path, field)
        wanted = set(chosen)
        for index, (place, read) in enumerate(rows):
            if index in wanted:
                yield Row(f"{path.name}, {place}", _value(path, place, field, read))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _lines(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                text = line.rstrip(b"\r\n")
                yield f"line {number}", dict.fromkeys(columns_of(field), text) if path.suffix == ".txt" else text


def _parquet(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    file = pq.ParquetFile(path)
    for column in columns_of(field):
        if column not in file.schema_arrow.names:
            raise InputError(f'{path}: no column "{column}"; there are {", ".join(file.schema_arrow.names)}')
    number = 0
    for table in file.iter_batches(batch_size=64, columns=list(columns_of(field))):
        for entry in table.to_pylist():
            number += 1
            yield f"row {number}", entry


def _value(path: Path, place: str, field: str, read: Any) -> Any:
    try:
        entry = json.loads(read) if isinstance(read, bytes) else read
        values = {column: _decoded(entry[column]) for column in columns_of(field)} if isinstance(entry, dict) else {}
    except KeyError as error:
        raise InputError(
            f'{path}, {place}: no field "{error.args[0]}"; there are {", ".join(map(str, entry))}'
        ) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}, {place}: {error}") from error
    for column in columns_of(field):
        if values.get(column) is None:
            raise InputError(f'{path}, {place}: expected an object with a "{column}", found {str(entry)[:40]}')
    return values[field] if field in values else _filled(path, place, field, values)


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _filled(path: Path, place: str, field: str, values: Mapping[str, Any]) -> str:
    for column, value in values.items():
        if not isinstance(value, str):
            raise InputError(f'{path}, {place}: expected text in "{column}", found {str(value)[:40]}')
    return _COLUMN.sub(lambda match: values[match[1]], field)
