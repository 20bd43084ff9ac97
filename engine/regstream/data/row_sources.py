"""Rows as they stand in a file, with where each one stands."""

import codecs
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from regstream.data.messages import CONVERSATIONS, MESSAGES, stored_field
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular
from regstream.units import format_bytes

_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 64
#: A row is held whole, its tokens some hundred times over while a tokenizer works.
_MAX_ROW_BYTES = 16 << 20
_TOO_LONG = f"a row of more than {format_bytes(_MAX_ROW_BYTES)}; split it into shorter ones"
#: Rows of token ids, and which of them are no padding, where a row says so.
TOKENS, MASK = "input_ids", "attention_mask"
_BITS = {"0", "1", "True", "False"}
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
    with error_boundary(f"{path}"):
        if path.suffix == ".parquet":
            return int(pq.read_metadata(check_regular(path)).num_rows)
        return sum(1 for _, line in _bounded_lines(path) if line.strip())


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
    with error_boundary(f"{path}"):
        rows = _parquet(path, field) if path.suffix == ".parquet" else _lines(path, field)
        wanted = set(chosen)
        for index, (place, read) in enumerate(rows):
            if index in wanted:
                yield Row(f"{path.name}, {place}", _value(path, place, field, read))


def _lines(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    for number, line in _bounded_lines(path):
        if line.strip():
            text = line.rstrip(b"\r\n")
            yield f"line {number}", dict.fromkeys(columns_of(field), text) if path.suffix == ".txt" else text


def _bounded_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with check_regular(path).open("rb") as stream:
        for number in count(1):
            line = stream.readline(_MAX_ROW_BYTES + 1)
            if len(line) > _MAX_ROW_BYTES:
                raise InputError(f"{path}, line {number}: {_TOO_LONG}")
            if not line:
                return
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def open_table(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """A parquet file that has these columns, of which batches are read page by page.

    Raises:
        InputError: there is no such column, or the file cannot be read.
    """
    # Read ahead, whole groups of rows would be held, and all of them where a file is one group.
    with error_boundary(f"{path}"):
        file = pq.ParquetFile(check_regular(path), pre_buffer=False, buffer_size=_BUFFER_BYTES)
    for column in columns:
        if stored_field(column, file.schema_arrow.names) not in file.schema_arrow.names:
            raise InputError(f'{path}: no column "{column}"; there are {", ".join(file.schema_arrow.names)}')
    return file


def _check_row_size(path: Path, file: pq.ParquetFile) -> None:
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        if group.total_byte_size > _MAX_ROW_BYTES * max(group.num_rows, 1):
            raise InputError(f"{path}, group {index + 1} of rows: {_TOO_LONG}")


def _parquet(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    file = open_table(path, columns_of(field))
    _check_row_size(path, file)
    columns = [stored_field(column, file.schema_arrow.names) for column in columns_of(field)]
    columns += [MASK] if field == TOKENS and MASK in file.schema_arrow.names else []
    number = 0
    for table in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        for entry in table.to_pylist():
            number += 1
            yield f"row {number}", entry


def _value(path: Path, place: str, field: str, read: Any) -> Any:
    entry = _parsed(path, place, read) if isinstance(read, bytes) else read
    if not isinstance(entry, dict):
        raise InputError(
            f'{path}, {place}: expected an object with a "{columns_of(field)[0]}", found {str(entry)[:40]}'
        )
    values = {}
    for column in columns_of(field):
        stored = stored_field(column, entry)
        if stored not in entry:
            raise InputError(
                f'{path}, {place}: no field "{column}"; there are {", ".join(map(str, entry))[:200]}{_advice(entry)}'
            )
        values[column] = _decoded(path, place, entry[stored])
    for column in columns_of(field):
        if values.get(column) is None:
            raise InputError(f'{path}, {place}: expected an object with a "{column}", found {str(entry)[:40]}')
    if field == TOKENS and entry.get(MASK) is not None:
        return unpadded(f"{path}, {place}", values[field], entry[MASK])
    return values[field] if field in values else _filled(path, place, field, values)


def _parsed(path: Path, place: str, line: bytes) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in column {error.colno}"
        if line.strip() in (b"[", b"{") or error.msg.startswith("Extra data"):
            reason += "; every line is a JSON object by itself"
        raise InputError(f"{path}, {place}: not JSON: {reason}") from error
    except RecursionError as error:
        raise InputError(f"{path}, {place}: JSON nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{path}, {place}: not JSON: {error}") from error


def _advice(entry: Mapping[str, Any]) -> str:
    return f'; field = "{MESSAGES}" reads conversations' if {MESSAGES, CONVERSATIONS} & entry.keys() else ""


def unpadded(place: str, ids: Any, mask: Any) -> Any:
    """Token ids without those that an attention mask leaves out, which are padding.

    Raises:
        InputError: the mask is no list of zeros and ones, one for each token.
    """
    if not (isinstance(ids, list) and isinstance(mask, list) and len(ids) == len(mask) and {*map(str, mask)} <= _BITS):
        raise InputError(f"{place}: expected an {MASK} of 0 and 1, one for each of {TOKENS}, found {str(mask)[:40]}")
    return [token for token, is_valid in zip(ids, mask, strict=True) if is_valid]


def _decoded(path: Path, place: str, value: Any) -> Any:
    with error_boundary(f"{path}, {place}"):
        return value.decode() if isinstance(value, bytes) else value


def _filled(path: Path, place: str, field: str, values: Mapping[str, Any]) -> str:
    for column, value in values.items():
        if not isinstance(value, str):
            raise InputError(f'{path}, {place}: expected text in "{column}", found {str(value)[:40]}')
    return _COLUMN.sub(lambda match: values[match[1]], field)
