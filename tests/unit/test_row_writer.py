"""Rows on their way to a parquet file: a piece of them in memory, and the types that all of them show together."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regstream.data import row_writer as pieces
from regstream.data.row_writer import write_rows
from regstream.storage import durable

ROW_BYTES = 5_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_CHUNK_BYTES", 10 * ROW_BYTES)


class Row(dict[str, Any]):
    """A row of an image that knows how many of its kind there are at once."""

    there = 0
    most = 0

    def __init__(self, index: int) -> None:
        super().__init__(image={"bytes": bytes([index]) * ROW_BYTES, "path": None}, label=index)
        Row.there += 1
        Row.most = max(Row.most, Row.there)

    def __del__(self) -> None:
        Row.there -= 1


def test_a_piece_of_the_rows_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    write_table = pq.ParquetWriter.write_table

    def counted(writer: Any, table: pa.Table, **options: Any) -> None:
        handed.append(table.nbytes)
        write_table(writer, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", counted)
    path = tmp_path / "rows.parquet"
    assert write_rows(path, map(Row, range(100))) == 100
    assert Row.most <= 12  # of 100: a piece of at most ten, the one that was over, the next
    assert len(handed) >= 10
    assert max(handed) <= 10 * ROW_BYTES
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == len(handed)
    kept = pq.read_table(path).to_pylist()
    assert [row["label"] for row in kept] == list(range(100))
    assert all(row["image"]["bytes"] == bytes([index]) * ROW_BYTES for index, row in enumerate(kept))
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_that_is_larger_than_a_piece_is_one(tmp_path: Path) -> None:
    rows = [{"text": "a" * size} for size in (10, 20 * ROW_BYTES, 30 * ROW_BYTES, 10, 10)]
    assert write_rows(tmp_path / "rows.parquet", rows) == 5
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [1, 1, 1, 2]
    assert file.read().to_pylist() == rows


def late() -> Iterator[dict[str, Any]]:
    """Rows that show only late what their columns hold."""
    for index in range(60):
        yield {
            "filler": "." * ROW_BYTES,
            "label": None if index < 25 else index,
            "score": 1 if index < 25 else 0.5,
            "ids": [] if index < 25 else [index],
            "messages": [{"role": "user"} if index < 25 else {"role": "user", "content": f"{index}?"}],
        }


def test_types_are_those_of_all_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", late())
    pq.write_table(pa.Table.from_pylist(list(late())), tmp_path / "at-once.parquet")
    at_once, kept = pq.read_table(tmp_path / "at-once.parquet"), pq.read_table(tmp_path / "rows.parquet")
    assert kept.schema == at_once.schema
    assert kept.to_pylist() == at_once.to_pylist()


def test_columns_that_come_late_or_in_another_order(tmp_path: Path) -> None:
    long = "." * 20 * ROW_BYTES
    write_rows(tmp_path / "rows.parquet", [{"a": 1, "b": long}, {"b": long, "a": 2}, {"c": 3, "b": long}])
    kept = pq.read_table(tmp_path / "rows.parquet")
    assert kept.column_names == ["a", "b", "c"]
    assert kept.column("a").to_pylist() == [1, 2, None]
    assert kept.column("c").to_pylist() == [None, None, 3]


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows.parquet", []) == 0
    assert list(tmp_path.iterdir()) == []


def failing() -> Iterator[dict[str, Any]]:
    yield from late()
    raise RuntimeError("the hub went away")


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="went away"):
        write_rows(tmp_path / "rows.parquet", failing())
    long = "." * 20 * ROW_BYTES
    with pytest.raises(pa.ArrowException, match="incompatible types"):
        write_rows(tmp_path / "rows.parquet", [{"a": 1, "b": long}, {"a": "1", "b": long}])

    def full(file: durable.HashedFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.HashedFile, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_rows(tmp_path / "rows.parquet", late())
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
