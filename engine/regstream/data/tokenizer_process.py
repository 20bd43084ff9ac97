"""A checkpoint's tokenizer and chat template, or its whole processor, in a process with bounded time and memory."""

import json
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from regstream.data.bounded_process import Answer, BoundedProcess
from regstream.data.chat_messages import MESSAGES
from regstream.data.row_reader import Row
from regstream.data.tokens import TokenIds, row_tokenizer

if TYPE_CHECKING:
    from regstream.data.multimodal_processor import MultimodalProcessor
    from regstream.data.processor_process import ProcessorProcess

#: Limits in CPU time.
_ROW_SECONDS = 2
_BYTES_PER_SECOND = 50_000  # long rows get more time
_Process = TypeVar("_Process", "TokenizerProcess", "ProcessorProcess")
_WHAT = "the tokenizer or its chat template"


class TokenizerProcess(AbstractContextManager["TokenizerProcess"]):
    """Turns rows into token ids as `row_tokenizer` does. Close it, or use it as a context manager.

    Raises:
        InputError: as `row_tokenizer` does; or loading, or a row, exceeds the limits.
    """

    is_of_targets = False

    def __init__(self, field: str, folder: Path, max_length: int) -> None:
        load = partial(_load, field, folder, max_length, is_target=self.is_of_targets)
        self._process = BoundedProcess(f"{folder}: the tokenizer", load)
        self.close = self._process.close

    def __call__(self, row: Row) -> TokenIds:
        """The row's token ids."""
        request = json.dumps([row.location, row.value], default=str)
        seconds = _ROW_SECONDS + len(request) // _BYTES_PER_SECOND
        ids = self._process.request(f"{row.location}: {_WHAT}", request, seconds=seconds)
        return np.frombuffer(bytearray(ids), np.int32)

    def __exit__(self, *exception: object) -> None:
        self.close()


class TargetTokenizerProcess(TokenizerProcess):
    """The same for what a model is to write."""

    is_of_targets = True


class SharedTokenizer(AbstractContextManager["SharedTokenizer"]):
    """Starts processes of tokenizers and processors, one at a time. Each stays for the next set of rows that needs the
    same: loading takes a while."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._process: TokenizerProcess | ProcessorProcess | None = None
        self._processors: dict[Path, MultimodalProcessor] = {}

    def get(self, field: str, folder: Path, max_length: int, *, is_target: bool = False) -> TokenizerProcess:
        """The process for rows of `field`, or for targets; raises as a new one does.

        It is valid until the next call.
        """
        kind: type[TokenizerProcess] = TargetTokenizerProcess if is_target else TokenizerProcess
        return self._shared(kind, field, folder, max_length)

    def get_processor(self, field: str, folder: Path, max_length: int) -> "ProcessorProcess":
        """The process for rows of `field` with images; raises as a new one does. It is valid until the next call."""
        from regstream.data.processor_process import ProcessorProcess

        return self._shared(ProcessorProcess, field, folder, max_length)

    def processor(self, folder: Path) -> "MultimodalProcessor":
        """The processor in this process, one for all sets of rows. Its own process has shown that it can be loaded."""
        from regstream.data.multimodal_processor import MultimodalProcessor

        if folder not in self._processors:
            self._processors[folder] = MultimodalProcessor(folder)
        return self._processors[folder]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _shared(self, kind: type[_Process], field: str, folder: Path, max_length: int) -> _Process:
        key = (field if field == MESSAGES else "text", folder, max_length)
        if self._process is None or type(self._process) is not kind or key != self._key:
            self.close()
            process = kind(*key)
            self._process, self._key = process, key
            return process
        return self._process


def _load(field: str, folder: Path, max_length: int, *, is_target: bool) -> Answer:
    tokenize = row_tokenizer(field, folder, max_length, is_target=is_target)
    return lambda request, _: tokenize(Row(*json.loads(request))).tobytes()
