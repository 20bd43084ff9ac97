"""Rows in files of text and in tables: which are taken, and where each one stands."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regstream.data.row_reader import Row, count_rows, read_rows, sample_indices
from regstream.errors import InputError


def jsonl(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def parquet(path: Path, columns: Mapping[str, list[Any]], *, row_group_size: int = 3) -> Path:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=row_group_size)
    return path


def every(path: Path, field: str = "text") -> list[Row]:
    return list(read_rows(path, field, list(range(count_rows(path)))))


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_a_draw_is_decided_by_its_seed(seed: int) -> None:
    drawn = sample_indices(1000, 50, seed)
    assert drawn == sample_indices(1000, 50, seed)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 50
    assert drawn != sample_indices(1000, 50, seed + 1)


@pytest.mark.parametrize("wanted", [None, 5, 6])
def test_all_rows_are_taken_where_no_fewer_are_wanted(wanted: int | None) -> None:
    assert sample_indices(5, wanted, 0) == [0, 1, 2, 3, 4]


def test_lines_are_counted_and_placed_with_blank_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\n  \n{"text": "b", "other": 1}\n{"text": "c"}')
    assert count_rows(path) == 3
    assert every(path) == [
        Row("math.jsonl, line 1", "a"), Row("math.jsonl, line 4", "b"), Row("math.jsonl, line 5", "c"),
    ]  # fmt: skip


def test_only_the_chosen_rows_are_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, "no object at all", {"text": "c"}])
    assert [row.value for row in read_rows(path, "text", [0, 2])] == ["a", "c"]


def test_a_text_file_has_a_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text('one\n\n{"text": "no JSON here"} \nthréé', encoding="utf-8")
    assert [row.value for row in every(path)] == ["one", '{"text": "no JSON here"} ', "thréé"]


def test_a_table_is_read_by_its_column(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", {"other": list(range(200)), "text": [f"row {i}" for i in range(200)]})
    assert count_rows(path) == 200
    rows = list(read_rows(path, "text", [0, 63, 64, 199]))
    assert [row.value for row in rows] == ["row 0", "row 63", "row 64", "row 199"]
    assert rows[-1].location == "rows.parquet, row 200"


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        ({"input_ids": [1, 2]}, "input_ids", [1, 2]),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages", [{"role": "user", "content": "hi"}]),
        ({"text": ""}, "text", ""),
    ],
)
def test_lines_and_tables_give_the_same_values(tmp_path: Path, record: dict[str, Any], field: str, value: Any) -> None:
    lines = jsonl(tmp_path / "rows.jsonl", [record])
    table = parquet(tmp_path / "rows.parquet", {name: [entry] for name, entry in record.items()})
    assert every(lines, field)[0].value == every(table, field)[0].value == value


def test_a_text_is_made_of_several_fields(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "query": ["2 + 2?", "{response}"],
        "other": [1, 2],
        "response": ["4", "\\1 \\g<0>"],
    }
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    field = "Q: {query}\nA: {response} ({query})"
    expected = ["Q: 2 + 2?\nA: 4 (2 + 2?)", "Q: {response}\nA: \\1 \\g<0> ({response})"]
    for path in (jsonl(tmp_path / "rows.jsonl", records), parquet(tmp_path / "rows.parquet", columns)):
        assert [row.value for row in every(path, field)] == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "a"}, 'no (field|column) "response"; there are query'),
        ({"query": "a", "response": None}, '1: expected an object with a "response"'),
        ({"query": "a", "response": 4}, '1: expected text in "response", found 4'),
    ],
)
def test_a_row_without_what_a_text_is_made_of_is_refused(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    table = parquet(tmp_path / "rows.parquet", {name: [entry] for name, entry in record.items()})
    for path in (jsonl(tmp_path / "rows.jsonl", [record]), table):
        with pytest.raises(InputError, match=message):
            every(path, "{query} {response}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "line 2: "),
        (b"[1, 2]", 'line 2: expected an object with a "text"'),
        (b'"text"', 'line 2: expected an object with a "text"'),
        (b"null", 'line 2: expected an object with a "text"'),
        (b'{"text": null}', 'line 2: expected an object with a "text"'),
        (b'{"prompt": "a", "answer": "b"}', 'line 2: no field "text"; there are prompt, answer'),
        (b'{"text": "\xff"}', "line 2: "),
        (b"[" * 100_000, "line 2: "),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "math.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(InputError, match=message) as caught:
        every(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_text_that_is_no_unicode_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"rows.txt, line 2: .*can't decode"):
        every(path)


def test_a_missing_column_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", {"prompt": ["a"], "answer": ["b"]})
    with pytest.raises(InputError, match='no column "text"; there are prompt, answer'):
        every(path)


def test_a_hole_in_a_column_is_refused_by_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", {"text": ["a", None]})
    with pytest.raises(InputError, match=r"rows.parquet, row 2: expected an object"):
        every(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.parquet"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        count_rows(tmp_path / name)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.parquet", [{"text": "a"}])
    with pytest.raises(InputError, match=r"rows.parquet: "):
        count_rows(path)
