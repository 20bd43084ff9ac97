"""Rows of text files, .csv, .json and parquet tables, each with its location."""

import codecs
import json
import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regstream.data.alpaca import ALPACA, ALPACA_COLUMNS, OPTIONAL_COLUMN, alpaca_text
from regstream.data.chat_messages import CONVERSATIONS, MESSAGES, stored_field
from regstream.data.csv_rows import csv_rows
from regstream.data.json_rows import is_json_lines, json_rows
from regstream.errors import InputError, error_boundary
from regstream.storage.regular_file import check_regular
from regstream.units import format_bytes

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 64
#: A row is in memory at once, and a tokenizer takes some hundred times as much.
_MAX_ROW_BYTES = 16 << 20
_TOO_LONG = f"a row of more than {format_bytes(_MAX_ROW_BYTES)}; split it into shorter ones"
#: Fields of token ids, and of the mask of their padding.
INPUT_IDS, ATTENTION_MASK = "input_ids", "attention_mask"
#: The field of a target's token ids, as they are predicted.
LABELS = "labels"
_BITS = {"0", "1", "True", "False"}
#: Fields that make a text together, of common data sets.
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("instruction", "response"))
_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Row:
    """A row's value, and its location, such as "math.jsonl, line 7"; `images` is the field of that name, if any."""

    location: str
    value: Any
    images: Any = None


def sample_indices(num_rows: int, num_samples: int | None, seed: int, part: slice = slice(None)) -> list[int]:
    """Sample `num_samples` of `num_rows` indices without replacement, sorted; None: all of them.

    `part` says which of the samples count, in an order that the seed draws; parts that do not overlap share none.
    """
    indices = list(range(num_rows))
    if num_samples is not None and num_samples < num_rows:
        indices = sorted(random.Random(seed).sample(indices, num_samples))  # noqa: S311
    if part == slice(None):
        return indices
    return sorted(random.Random(seed).sample(indices, len(indices))[part])  # noqa: S311


def count_rows(path: Path) -> int:
    """The number of rows of a file: a table's or a list's rows, or lines that are not blank.

    Raises:
        InputError: the file cannot be read.
    """
    with error_boundary(f"{path}"):
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq  # not for other files: it takes a while

            return int(pq.read_metadata(check_regular(path)).num_rows)
        if path.suffix in (".csv", ".json"):
            return sum(1 for _ in _file_rows(path, ALPACA))
        return sum(1 for _, line in _bounded_lines(path) if line.strip())


def field_columns(field: str) -> tuple[str, ...]:
    """The fields that `field` consists of: those in braces, Alpaca's, or `field` itself."""
    return ALPACA_COLUMNS if field == ALPACA else tuple(dict.fromkeys(_COLUMN.findall(field))) or (field,)


def missing_columns(field: str, available: Collection[str]) -> list[str]:
    """The fields that `field` consists of and rows with those `available` lack."""
    may_lack = OPTIONAL_COLUMN if field == ALPACA else None
    columns = (column for column in field_columns(field) if column != may_lack)
    return [column for column in columns if stored_field(column, available) not in available]


def field_advice(available: Collection[str]) -> str:
    """What to write for rows that lack the field, where they have the form of other rows; else nothing."""
    names = set(available)
    if names & {MESSAGES, *CONVERSATIONS}:
        return f'; field = "{MESSAGES}" reads conversations'
    if names >= {*ALPACA_COLUMNS} - {OPTIONAL_COLUMN}:
        return f'; field = "{ALPACA}" reads {", ".join(ALPACA_COLUMNS)}'
    if INPUT_IDS in names:
        return f'; field = "{INPUT_IDS}" reads token ids'
    pair = next((pair for pair in _PAIRS if names >= {*pair}), None)
    return "" if pair is None else f'; field = "{{{pair[0]}}}\\n{{{pair[1]}}}" joins two of them'


def read_rows(path: Path, field: str, indices: list[int], images: str | None = None) -> Iterator[Row]:
    """Read `field` of the rows at these indices, in the file's order; a line of a .txt file is a row.

    `field` may be a template with fields in braces, such as "{question}\\n{answer}". `images` is a field that rows of a
    text file may have.

    Raises:
        InputError: the file cannot be read, a line is not a JSON object, a row lacks the field, or a field of a
            template is not text.
    """
    with error_boundary(f"{path}"):
        selected = set(indices)
        for index, (location, row) in enumerate(_file_rows(path, field)):
            if index in selected:
                where = f"{path}, {location}"
                entry = _parse_json(where, row) if isinstance(row, bytes) else row
                value = _value(where, field, entry)
                yield Row(f"{path.name}, {location}", value, entry.get(images) if images else None)


def _file_rows(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    """The rows of a file with their locations: each a table of fields, or a line of JSON as bytes."""
    if path.suffix == ".parquet":
        return _table_rows(path, field)
    if path.suffix == ".txt" and field == ALPACA:
        raise InputError(
            f'{path}: field = "{ALPACA}" needs rows with {", ".join(ALPACA_COLUMNS)}; a line of a .txt is a text'
        )
    if path.suffix == ".csv":
        return csv_rows(path, _MAX_ROW_BYTES)
    if path.suffix == ".json" and not is_json_lines(path, _MAX_ROW_BYTES):
        return json_rows(path, _MAX_ROW_BYTES)
    return _text_rows(path, field)


def _text_rows(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    for number, line in _bounded_lines(path):
        if line.strip():
            text = line.rstrip(b"\r\n")
            yield f"line {number}", dict.fromkeys(field_columns(field), text) if path.suffix == ".txt" else text


def _bounded_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with check_regular(path).open("rb") as stream:
        for number in count(1):
            line = stream.readline(_MAX_ROW_BYTES + 1)
            if len(line) > _MAX_ROW_BYTES:
                raise InputError(f"{path}, line {number}: {_TOO_LONG}")
            if not line:
                return
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def open_table(path: Path, field: str) -> "pq.ParquetFile":
    """Open a parquet file that has the columns of a field; batches are read page by page.

    Raises:
        InputError: a column is missing, or the file cannot be read.
    """
    import pyarrow.parquet as pq

    # With read-ahead, memory would hold whole row groups, and a file may be a single one.
    with error_boundary(f"{path}"):
        file = pq.ParquetFile(check_regular(path), pre_buffer=False, buffer_size=_BUFFER_BYTES)
    names = file.schema_arrow.names
    for column in missing_columns(field, names):
        raise InputError(f'{path}: no column "{column}"; there are {", ".join(names)}{field_advice(names)}')
    return file


def _table_rows(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    file = open_table(path, field)
    for index, group in enumerate(map(file.metadata.row_group, range(file.num_row_groups)), 1):
        if group.total_byte_size > _MAX_ROW_BYTES * max(group.num_rows, 1):
            raise InputError(f"{path}, group {index} of rows: {_TOO_LONG}")
    columns = [stored_field(column, file.schema_arrow.names) for column in field_columns(field)]
    columns = [column for column in columns if column in file.schema_arrow.names]
    columns += [ATTENTION_MASK] if field == INPUT_IDS and ATTENTION_MASK in file.schema_arrow.names else []
    tables = file.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
    for number, entry in enumerate(chain.from_iterable(table.to_pylist() for table in tables), 1):
        yield f"row {number}", entry


def _value(where: str, field: str, entry: Any) -> Any:
    columns = field_columns(field)
    if not isinstance(entry, dict):
        raise InputError(f'{where}: expected an object with a "{columns[0]}", found {str(entry)[:40]}')
    for column in missing_columns(field, entry):
        available = ", ".join(map(str, entry))[:200]
        raise InputError(f'{where}: no field "{column}"; there are {available}{field_advice(entry)}')
    values: dict[str, Any] = {}
    for column in columns:
        value = entry.get(stored_field(column, entry))
        if value is None and field == ALPACA and column == OPTIONAL_COLUMN:
            value = ""
        if value is None:
            raise InputError(f'{where}: expected an object with a "{column}", found {str(entry)[:40]}')
        with error_boundary(where):
            values[column] = value.decode() if isinstance(value, bytes) else value
    if field == INPUT_IDS and entry.get(ATTENTION_MASK) is not None:
        return drop_padding(where, values[field], entry[ATTENTION_MASK])
    return values[field] if field in values else _fill_template(where, field, values)


def _parse_json(where: str, line: bytes) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in column {error.colno}"
        if line.strip() in (b"[", b"{") or error.msg.startswith("Extra data"):
            reason += "; every line is a JSON object by itself"
        raise InputError(f"{where}: not JSON: {reason}") from error
    except RecursionError as error:
        raise InputError(f"{where}: JSON nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error


def drop_padding(location: str, ids: Any, mask: Any) -> Any:
    """Remove the token ids whose attention mask is 0.

    Raises:
        InputError: the mask is not a list of zeros and ones, one for each token.
    """
    if not (isinstance(ids, list) and isinstance(mask, list) and len(ids) == len(mask) and {*map(str, mask)} <= _BITS):
        raise InputError(
            f"{location}: expected an {ATTENTION_MASK} of 0 and 1, one for each of {INPUT_IDS}, found {str(mask)[:40]}"
        )
    return [token for token, is_valid in zip(ids, mask, strict=True) if is_valid]


def _fill_template(where: str, field: str, values: Mapping[str, Any]) -> str:
    for column, value in values.items():
        if not isinstance(value, str):
            raise InputError(f'{where}: expected text in "{column}", found {str(value)[:40]}')
    return alpaca_text(values) if field == ALPACA else _COLUMN.sub(lambda match: values[match[1]], field)
