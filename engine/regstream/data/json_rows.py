"""Rows of a .json file: a list of objects, or an object with one such list. Memory holds one row at a time."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final, TextIO

from regstream.errors import InputError
from regstream.storage.regular_file import check_regular

_CHUNK_CHARS: Final = 1 << 16
_BLANK: Final = " \t\r\n"
#: A decoder's error at most so far from the end of what was read may be of a value that was read in part.
_LONGEST_LITERAL: Final = 16
_FIRST: Final = "row 1"
_EXPECTED: Final = "expected a list of objects, or an object with one list of objects"


def json_rows(path: Path, max_chars: int) -> Iterator[tuple[str, Any]]:
    """Every row of the list in a .json file, with its location; of an object's other values, none may be such a list.

    Raises:
        InputError: the file is not JSON or has no such list, or a value of more than `max_chars`.
    """
    with check_regular(path).open(encoding="utf-8-sig") as stream:
        reader = _Reader(path, stream, max_chars)
        if reader.peek() == "[":
            yield from _rows(reader)
        elif reader.peek() == "{":
            yield from _rows_of_object(path, reader)
        else:
            found = f"{_EXPECTED}, found {reader.peek()!r}" if reader.peek() else "no rows; the file is empty"
            raise InputError(f"{path}: {found}")
        if reader.peek():
            raise reader.error("more after the end of the JSON; a file of a JSON object a line is named .jsonl")


def is_json_lines(path: Path, max_bytes: int) -> bool:
    """Whether a .json file holds a JSON object a line, as a .jsonl does: its first line is a whole object, one of more.

    Raises:
        OSError: the file cannot be read.
    """
    with check_regular(path).open("rb") as stream:
        lines = (line for line in iter(lambda: stream.readline(max_bytes), b"") if line.strip())
        first, second = next(lines, b"").removeprefix(b"\xef\xbb\xbf").strip(), next(lines, b"").strip()
    if not (first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{")):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


class _Reader:
    """Reads a text value by value."""

    def __init__(self, path: Path, stream: TextIO, max_chars: int) -> None:
        self._path, self._stream, self._max_chars = path, stream, max_chars
        self._decoder = json.JSONDecoder()
        self._text, self._position, self._lines, self._is_whole = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            while self._position < len(self._text):
                if (char := self._text[self._position]) not in _BLANK:
                    return char
                self._position += 1
            if self._is_whole:
                return ""
            self._read(_CHUNK_CHARS)

    def take(self, expected: str) -> str:
        """The next character, which is one of those expected."""
        if not (char := self.peek()) or char not in expected:
            found = f"found {char!r}" if char else "and the file ends"
            raise self.error(f"expected {' or '.join(map(repr, expected))}, {found}")
        self._position += 1
        return char

    def value(self) -> Any:
        """The next value."""
        self.peek()
        num_chars = _CHUNK_CHARS
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except RecursionError as error:
                raise self.error("nested too deeply") from error
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_LITERAL
                if self._is_whole or not is_cut:
                    self._position = error.pos
                    raise self.error(error.msg) from error
            else:
                is_done = end < len(self._text) or self._is_whole  # a number at the end may go on
                if is_done and end - self._position <= self._max_chars:
                    self._position = end
                    return value
            if len(self._text) - self._position > self._max_chars:
                raise self.error(f"a row of more than {self._max_chars >> 20} MiB; split it into shorter ones")
            self._read(num_chars)
            num_chars *= 2

    def error(self, reason: str) -> InputError:
        """What is wrong at the current position."""
        line = self._lines + self._text.count("\n", 0, self._position)
        return InputError(f"{self._path}, line {line}: not JSON: {reason}")

    def _read(self, num_chars: int) -> None:
        self._lines += self._text.count("\n", 0, self._position)
        read = self._stream.read(num_chars)
        self._text, self._position, self._is_whole = self._text[self._position :] + read, 0, not read


def _rows(reader: _Reader) -> Iterator[tuple[str, Any]]:
    reader.take("[")
    if reader.peek() == "]":
        reader.take("]")
        return
    yield _FIRST, reader.value()
    for number in count(2):
        if reader.take(",]") == "]":
            return
        yield f"row {number}", reader.value()


def _rows_of_object(path: Path, reader: _Reader) -> Iterator[tuple[str, Any]]:
    lists: list[str] = []
    reader.take("{")
    is_last = reader.peek() == "}" and bool(reader.take("}"))
    while not is_last:
        key = str(reader.value())
        reader.take(":")
        for location, row in _rows(reader) if reader.peek() == "[" else [("", reader.value())]:
            if location == _FIRST and isinstance(row, dict):
                lists.append(key)
            if len(lists) > 1:
                raise InputError(f"{path}: {_EXPECTED}, found several: {', '.join(lists)}; keep one")
            if location and lists[-1:] == [key]:  # other lists, of names or numbers, say something of the rows
                yield location, row
        is_last = reader.take(",}") == "}"
    if not lists:
        raise InputError(f"{path}: {_EXPECTED}, found an object without one")
