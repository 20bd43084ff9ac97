"""Rows of .json and .csv files, and of Alpaca's fields: what is read, and what is said of files that are otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest

from regstream.data.row_reader import Row, count_rows, read_rows
from regstream.errors import InputError

ROWS = [{"text": "one"}, {"text": "ü, two\nlines"}, {"text": "y" * 200_000}]
PROMPT = "Below is an instruction that describes a task"


def every(path: Path, field: str = "text") -> list[Row]:
    return list(read_rows(path, field, list(range(count_rows(path)))))


def texts(path: Path, field: str = "text") -> list[Any]:
    return [row.value for row in every(path, field)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("content", [ROWS, {"version": 1, "names": ["a"], "data": ROWS, "z": {}}])
def test_a_list_of_objects_has_its_rows_alone_or_in_an_object(tmp_path: Path, indent: int | None, content: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content, indent=indent))
    assert every(path) == [Row(f"rows.json, row {n}", row["text"]) for n, row in enumerate(ROWS, 1)]
    assert [row.value for row in read_rows(path, "text", [1])] == [ROWS[1]["text"]]


def test_a_json_of_an_object_a_line_is_read_as_a_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n')
    assert every(path) == [Row("rows.json, line 1", "a"), Row("rows.json, line 3", "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.json: no rows; the file is empty"),
        ("5", "rows.json: expected a list of objects, or an object with one list of objects, found '5'"),
        ("{}", "found an object without one"),
        ('{"a": [{}], "b": [{}]}', "found several: a, b; keep one"),
        ('[{"text": "a"},\n {"text": b}]', "rows.json, line 2: not JSON: Expecting value"),
        ('[{"text": "a"}\n {"text": "b"}]', "rows.json, line 2: not JSON: expected ',' or ']', found '{'"),
        ('[{"text": "a', "rows.json, line 1: not JSON: Unterminated string"),
        ('[{"text": "a"}', "rows.json, line 1: not JSON: expected ',' or ']', and the file ends"),
        ('[{"text": "a"}] []', "more after the end of the JSON"),
        ('[{"text": "a"}, 3]', 'rows.json, row 2: expected an object with a "text", found 3'),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_json_without_rows_is_refused_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        every(path)
    assert message in str(caught.value)


def test_a_csv_has_fields_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufefftext,other\r\n"one, ""two""\r\nthree",1\r\n\r\nfour,\r\n'.encode())
    assert every(path) == [Row("rows.csv, line 2", 'one, "two"\r\nthree'), Row("rows.csv, line 5", "four")]
    assert texts(path, "{other}: {text}")[1] == ": four"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.csv: no rows; the first line names the fields"),
        ("text;b\nx;2\n", "rows.csv, line 1: fields are separated by semicolons; separate them by commas"),
        ("text,text\n1,2\n", 'the header names "text" twice'),
        ("text,b\nx,1\ny\n", "rows.csv, line 3: 1 field, and the header names 2"),
        ('text\n"x\n', "rows.csv, line 2: not CSV: unexpected end of data"),
        ("a,b\n1,2\n", 'rows.csv, line 2: no field "text"; there are a, b'),
    ],
)
def test_a_csv_without_rows_is_refused_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        every(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.jsonl"])
def test_a_row_of_any_size_is_refused(tmp_path: Path, name: str) -> None:
    path, long = tmp_path / name, "y" * (17 << 20)
    path.write_text(f'text\n"{long}"\n' if name == "rows.csv" else json.dumps([{"text": long}]))
    with pytest.raises(InputError, match="a row of more than 16 MiB; split it into shorter ones"):
        every(path)


def test_alpaca_is_the_prompt_of_stanford_with_and_without_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"instruction": "Add {x}.", "input": "1, 2", "output": "3"}, {"instruction": "Hi", "output": "Ho"}]
    path.write_text(json.dumps([*rows, {**rows[1], "input": ""}, {**rows[1], "input": None}]))
    first, *others = texts(path, "alpaca")
    assert first == (
        f"{PROMPT}, paired with an input that provides further context. Write a response that appropriately completes"
        " the request.\n\n### Instruction:\nAdd {x}.\n\n### Input:\n1, 2\n\n### Response:3"
    )
    without = f"{PROMPT}. Write a response that appropriately completes the request.\n\n"
    assert others == [f"{without}### Instruction:\nHi\n\n### Response:Ho"] * 3


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ({"messages": []}, 'field = "messages" reads conversations'),
        ({"conversation": []}, 'field = "messages" reads conversations'),
        ({"instruction": "a", "output": "b"}, 'field = "alpaca" reads instruction, input, output'),
        ({"input_ids": [1]}, 'field = "input_ids" reads token ids'),
        ({"prompt": "a", "completion": "b"}, r'field = "{prompt}\n{completion}" joins two of them'),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_rows_of_another_form_are_told_what_to_write(
    tmp_path: Path, row: dict[str, Any], advice: str, suffix: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps([row]))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row]), path)
    with pytest.raises(InputError) as caught:
        every(path)
    assert str(caught.value).endswith(f"there are {', '.join(row)}; {advice}")
