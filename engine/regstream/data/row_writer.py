"""Rows written as a parquet file piece by piece, so that memory holds one piece of them, however many there are."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regstream.storage import durable

#: Of rows as Python holds them. A piece is a group of rows of the file.
_PIECE_BYTES = 4 << 20


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a file that appears whole, durable, or not at all; how many rows it has. Without rows there is no file.

    Pieces go to a file without a name first, each with the types that it shows, beside where all of them will be: what
    a column holds is known when the last row is (fields that come late, numbers after missing values).

    Raises:
        OSError: the disk refused.
        pa.ArrowException: a column holds values that are of no one type.
    """
    schema, num_pieces, num_rows = pa.schema([]), 0, 0
    with TemporaryFile(dir=path.parent) as spool:
        for piece in _pieces(rows):
            schema = pa.unify_schemas([schema, piece.schema], promote_options="permissive")
            with pa.ipc.new_stream(spool, piece.schema) as stream:
                stream.write_table(piece)
            num_pieces += 1
            num_rows += piece.num_rows
        if num_pieces:
            spool.seek(0)
            _write(path, schema, _spooled(spool, num_pieces))
    return num_rows


def _pieces(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.Table]:
    piece: list[Mapping[str, Any]] = []
    num_bytes = 0
    for row in rows:
        row_bytes = _held_bytes(row)
        if piece and num_bytes + row_bytes > _PIECE_BYTES:
            yield pa.Table.from_pylist(piece)
            piece, num_bytes = [], 0
        piece.append(row)
        num_bytes += row_bytes
    if piece:
        yield pa.Table.from_pylist(piece)


def _held_bytes(value: Any) -> int:
    parts: Iterable[Any] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    return sys.getsizeof(value) + sum(map(_held_bytes, parts))


def _spooled(spool: Any, count: int) -> Iterator[pa.Table]:
    for _ in range(count):
        with pa.ipc.open_stream(spool) as stream:
            yield stream.read_all()


def _write(path: Path, schema: pa.Schema, pieces: Iterable[pa.Table]) -> None:
    with durable.atomic_file(path) as file, pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for piece in pieces:
            # With nothing before it, a table of these types: what a piece shows less of is filled in.
            whole = pa.concat_tables([schema.empty_table(), piece], promote_options="permissive")
            writer.write_table(whole, row_group_size=whole.num_rows)
