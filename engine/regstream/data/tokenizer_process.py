"""A checkpoint's tokenizer and chat template, or its whole processor, in a process with bounded time and memory."""

import json
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np

from regstream.data.bounded_process import Answer, BoundedProcess
from regstream.data.chat_messages import MESSAGES
from regstream.data.row_reader import Row
from regstream.data.tokens import TokenIds, row_tokenizer

#: Limits in CPU time.
_ROW_SECONDS = 2
_BYTES_PER_SECOND = 50_000  # long rows get more time
_WHAT = "the tokenizer or its chat template"


class TokenizerProcess(AbstractContextManager["TokenizerProcess"]):
    """Turns rows into token ids as `row_tokenizer` does. Close it, or use it as a context manager.

    Raises:
        InputError: as `row_tokenizer` does; or loading, or a row, exceeds the limits.
    """

    def __init__(self, field: str, folder: Path, max_length: int) -> None:
        self._process = BoundedProcess(f"{folder}: the tokenizer", partial(_load, field, folder, max_length))
        self.close = self._process.close

    def __call__(self, row: Row) -> TokenIds:
        """The row's token ids."""
        request = json.dumps([row.location, row.value], default=str)
        seconds = _ROW_SECONDS + len(request) // _BYTES_PER_SECOND
        ids = self._process.request(f"{row.location}: {_WHAT}", request, seconds=seconds)
        return np.frombuffer(bytearray(ids), np.int32)

    def __exit__(self, *exception: object) -> None:
        self.close()


class SharedTokenizer(AbstractContextManager["SharedTokenizer"]):
    """Starts tokenizer processes. Each stays for the next set of rows that needs the same: loading takes a while."""

    def __init__(self) -> None:
        self._key: tuple[str, Path, int] | None = None
        self._process: TokenizerProcess | None = None

    def get(self, field: str, folder: Path, max_length: int) -> TokenizerProcess:
        """The process for rows of `field`; raises as a new one does. It is valid until the next call."""
        key = (field if field == MESSAGES else "text", folder, max_length)
        if self._process is None or key != self._key:
            self.close()
            self._process, self._key = TokenizerProcess(*key), key
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def __exit__(self, *exception: object) -> None:
        self.close()


def _load(field: str, folder: Path, max_length: int) -> Answer:
    tokenize = row_tokenizer(field, folder, max_length)
    return lambda request, _: tokenize(Row(*json.loads(request))).tobytes()
