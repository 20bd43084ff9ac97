"""A journal's lines: what is written is read, a torn end is known for one, and any other damage is refused."""

from pathlib import Path

import pytest

from regstream.errors import ResumeError
from regstream.storage import journal_lines as lines
from regstream.storage.journal_lines import Record

RECORDS: list[Record] = [
    {"format": 1, "identity": {"manifest": {"alpha": 0.95}}},
    {"index": 0, "name": "stem\r\u2028\x85", "solves": []},
    {"index": 1, "name": "block 0", "solves": [{"residual": 1e-9}]},
]


def write(folder: Path, *records: bytes) -> Path:
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(records))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    encoded = [lines.encode(record) for record in RECORDS]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in encoded)
    assert [lines.decode(line) for line in encoded] == RECORDS
    assert lines.read(write(tmp_path, *encoded)) == (RECORDS, sum(map(len, encoded)))


@pytest.mark.parametrize("content", [None, b""])
def test_no_journal_holds_no_records(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert lines.read(path) == ([], 0)


def test_the_same_record_is_always_the_same_line() -> None:
    assert lines.encode({"a": 1, "b": 2}) == lines.encode({"b": 2, "a": 1})


def test_no_changed_byte_of_a_line_goes_unnoticed() -> None:
    line = lines.encode(RECORDS[2])
    for position in range(len(line)):
        for flip in (0x01, 0x20, 0x80):
            damaged = bytearray(line)
            damaged[position] ^= flip
            assert lines.decode(bytes(damaged)) is None


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_torn_last_line_is_left_out(tmp_path: Path, kept: float) -> None:
    first, second, third = (lines.encode(record) for record in RECORDS)
    torn = third[: int(len(third) * kept)]
    assert lines.read(write(tmp_path, first, second, torn)) == (RECORDS[:2], len(first) + len(second))


def test_a_last_line_that_lost_only_its_end_was_never_committed(tmp_path: Path) -> None:
    first, second, third = (lines.encode(record) for record in RECORDS)
    assert lines.read(write(tmp_path, first, second, third[:-1])) == (RECORDS[:2], len(first) + len(second))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("damage", [b"\n", b"0000000000000000 {}\n", b"\x00" * 40 + b"\n", b"{}\n"])
def test_damage_before_the_last_line_is_refused_by_its_number(tmp_path: Path, number: int, damage: bytes) -> None:
    encoded = [lines.encode(record) for record in RECORDS]
    encoded[number - 1] = damage
    path = write(tmp_path, *encoded)
    with pytest.raises(ResumeError, match=f"line {number} of 3: damaged; --restart starts over") as caught:
        lines.read(path)
    assert str(path) in str(caught.value)


def test_a_lost_line_feed_between_records_is_damage(tmp_path: Path) -> None:
    first, second, third = (lines.encode(record) for record in RECORDS)
    with pytest.raises(ResumeError, match="line 1 of 2"):
        lines.read(write(tmp_path, first[:-1], second, third))


@pytest.mark.parametrize("value", [[1], 7, None, "text"])
def test_a_line_that_holds_no_table_is_no_record(value: object) -> None:
    line = lines.encode(value)  # type: ignore[arg-type]
    assert lines.decode(line) is None


def test_what_cannot_be_written_again_is_no_record() -> None:
    assert lines.decode(lines.encode({"name": "\ud800"})) is None
