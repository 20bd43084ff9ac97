"""Conversations as ShareGPT writes them are those that chat templates read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig

import checkpoints
from architectures import llama
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 6 times 7?"},
    {"role": "assistant", "content": "42"},
]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "What is 6 times 7?"},
    {"from": "gpt", "value": "42"},
]
Load = Callable[[Path], CalibrationSet]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.make_tokenizer().save_pretrained(folder)

    def load(path: Path, field: str = "messages") -> CalibrationSet:
        config = LlamaConfig(vocab_size=checkpoints.VOCABULARY)
        calibration = Calibration(path=path, field=field)
        return load_calibration(
            calibration, architecture=llama(), config=config, base=folder, seed=0, warn=lambda _: None
        )

    return load


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("key", ["conversations", "messages"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_sharegpt_rows_are_read_as_messages(tmp_path: Path, load: Load, key: str, kind: str) -> None:
    expected = load(lines(tmp_path / "expected.jsonl", {"messages": MESSAGES}))
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({key: [SHAREGPT]}), path)
    else:
        lines(path, {"id": 1, key: SHAREGPT})
    assert load(path).digest == expected.digest


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"from": "cat", "value": "x"}], r"line 1: a ShareGPT message is from 'cat'; known are human, user, gpt"),
        ([{"from": None, "value": "x"}], "a ShareGPT message is from 'None'"),
        ([SHAREGPT[0], "x"], 'expected messages with "from" and "value" throughout'),
        ([SHAREGPT[0], MESSAGES[1]], 'expected messages with "from" and "value" throughout'),
    ],
)
def test_what_is_neither_is_refused_by_line(tmp_path: Path, load: Load, messages: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load(lines(tmp_path / "rows.jsonl", {"conversations": messages}))


def test_a_row_without_either_is_told_what_it_has(tmp_path: Path, load: Load) -> None:
    with pytest.raises(InputError, match=r'rows.jsonl, line 1: no field "messages"; there are id, dialog'):
        load(lines(tmp_path / "rows.jsonl", {"id": 1, "dialog": SHAREGPT}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{\x00}\x00\n", "line 1: "),
        (b'{"text": NaN}\n', "expected text, found nan"),
        (b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
        (b'{"text": ' + b"1" * 5000 + b"}\n", "line 1: "),
        (b'{"text": ' + b"[" * 100_000 + b"}\n", "line 1: "),
        (b'{"text": "' + b"x" * (17 << 20) + b'"}\n', r"line 1: a row of more than 16 MiB; split it into shorter ones"),
        (b'{"text": ["a"]}\n', "expected text, found"),
        (b'{"text": {"a": "b"}}\n', "expected text, found"),
        (b"[1]\n", 'expected an object with a "text"'),
    ],
)
def test_odd_rows_are_refused_by_line(tmp_path: Path, load: Any, content: bytes, reason: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load(tmp_path / "rows.jsonl", field="text")


def test_a_byte_order_mark_is_no_text(tmp_path: Path, load: Any) -> None:
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfsome text\n")
    (tmp_path / "plain.txt").write_bytes(b"some text\n")
    digests = [load(tmp_path / name, field="text").digest for name in ("marked.txt", "plain.txt")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ("hi", "expected a list of messages, found hi"),
        ({"role": "user", "content": "hi"}, "expected a list of messages"),
        ([MESSAGES, MESSAGES], 'expected messages {"role"'),
        ([{}], 'expected messages {"role"'),
        ([{"content": "hi"}], 'expected messages {"role"'),
        ([{"role": "user"}], "expected text in the \"content\" of the message of 'user', found None"),
        ([{"role": "user", "content": 2}], "found 2"),
        ([{"from": "human", "value": None}], "found None"),
        ([{"role": "user", "content": "a \ud800"}], "half of a surrogate pair, U+D800"),
    ],
)
def test_what_a_template_would_print_as_nothing_or_none_is_refused(
    tmp_path: Path, load: Load, messages: Any, what: str
) -> None:
    with pytest.raises(InputError) as error:
        load(lines(tmp_path / "rows.jsonl", {"messages": messages}))
    assert what in str(error.value)


def test_calls_of_tools_need_no_content_and_tools_have_a_role(tmp_path: Path, load: Load) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
    load(lines(tmp_path / "calls.jsonl", {"messages": [*MESSAGES, call]}))
    expected = load(lines(tmp_path / "expected.jsonl", {"messages": [*MESSAGES, {"role": "tool", "content": "42"}]}))
    rows = lines(tmp_path / "rows.jsonl", {"conversations": [*SHAREGPT, {"from": "tool", "value": "42"}]})
    assert load(rows).digest == expected.digest
