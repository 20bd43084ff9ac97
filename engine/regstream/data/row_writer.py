"""Rows written to a parquet file chunk by chunk, so that memory holds one chunk whatever the number of rows."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regstream.storage import durable

#: Size of a chunk's rows as Python objects. A chunk is one row group of the file.
_CHUNK_BYTES = 4 << 20


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write the rows to a file, atomically and durably, and return their number. Without rows there is no file.

    A column's type is known only after the last row (fields that first appear late, numbers after missing values), so
    chunks go to a temporary file first, each with the types of its own rows.

    Raises:
        OSError: the disk refused.
        pa.ArrowException: the values of a column have no common type.
    """
    schema, num_chunks, num_rows = pa.schema([]), 0, 0
    with TemporaryFile(dir=path.parent) as spool:
        for chunk in _chunks(rows):
            schema = pa.unify_schemas([schema, chunk.schema], promote_options="permissive")
            with pa.ipc.new_stream(spool, chunk.schema) as stream:
                stream.write_table(chunk)
            num_chunks += 1
            num_rows += chunk.num_rows
        if num_chunks:
            spool.seek(0)
            _write(path, schema, spool, num_chunks)
    return num_rows


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.Table]:
    chunk: list[Mapping[str, Any]] = []
    chunk_bytes = 0
    for row in rows:
        row_bytes = _memory_bytes(row)
        if chunk and chunk_bytes + row_bytes > _CHUNK_BYTES:
            yield pa.Table.from_pylist(chunk)
            chunk, chunk_bytes = [], 0
        chunk.append(row)
        chunk_bytes += row_bytes
    if chunk:
        yield pa.Table.from_pylist(chunk)


def _memory_bytes(value: Any) -> int:
    children: Iterable[Any] = value if isinstance(value, list) else ()
    if isinstance(value, Mapping):
        children = value.values()
    return sys.getsizeof(value) + sum(map(_memory_bytes, children))


def _write(path: Path, schema: pa.Schema, spool: Any, num_chunks: int) -> None:
    with durable.atomic_file(path) as file, pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for _ in range(num_chunks):
            with pa.ipc.open_stream(spool) as stream:
                chunk = stream.read_all()
            # Appended to an empty table of the full schema, a chunk gets the columns and types it lacks.
            table = pa.concat_tables([schema.empty_table(), chunk], promote_options="permissive")
            writer.write_table(table, row_group_size=table.num_rows)
