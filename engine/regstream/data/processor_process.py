"""The base's processor in a process with bounded time and memory, where each row is prepared for the first time."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from regstream.data.bounded_process import Answer, BoundedProcess
from regstream.data.multimodal_processor import MultimodalProcessor
from regstream.data.row_images import RowWithImages
from regstream.data.row_reader import INPUT_IDS, Row
from regstream.data.tokens import TokenIds

#: Limits in CPU time.
_ROW_SECONDS = 2
_IMAGE_SECONDS = 20
_BYTES_PER_SECOND = 50_000  # long rows get more time


@dataclass(frozen=True)
class MeasuredRow:
    """What is kept of a row that was prepared once."""

    text: str  # as the chat template renders it
    ids: TokenIds
    pixel_digest: str
    input_bytes: int
    preparation_bytes: int


class ProcessorProcess(AbstractContextManager["ProcessorProcess"]):
    """Prepares rows of `field` as `MultimodalProcessor` does, and measures the result. Close it after use.

    Raises:
        InputError: as `MultimodalProcessor` does; or loading, or a row, exceeds the limits.
    """

    def __init__(self, field: str, folder: Path, max_length: int) -> None:
        self._process = BoundedProcess(f"{folder}: the processor", partial(_load, field, folder, max_length))
        self.close = self._process.close

    def __call__(self, row: RowWithImages) -> MeasuredRow:
        """Read the row's images and prepare it."""
        encoded = [image.read() for image in row.images]
        names, files = [name for name, _ in encoded], [file for _, file in encoded]
        request = json.dumps([row.location, row.value, names], default=str)
        num_bytes = len(request) + sum(map(len, files))
        seconds = _ROW_SECONDS + _IMAGE_SECONDS * len(files) + num_bytes // _BYTES_PER_SECOND
        what = f"{row.location}: the processor or its chat template"
        text, ids, *others = json.loads(self._process.request(what, request, files, seconds=seconds))
        return MeasuredRow(text, np.asarray(ids, np.int32), *others)

    def __exit__(self, *exception: object) -> None:
        self.close()


def _load(field: str, folder: Path, max_length: int) -> Answer:
    torch.set_num_threads(1)  # threads do not survive a fork
    processor = MultimodalProcessor(folder)

    def answer(request: str, files: list[bytes]) -> bytes:
        location, value, names = json.loads(request)
        text = processor.render(Row(location, value), field)
        encoded = list(zip(names, files, strict=True))
        row = processor.prepare(location, text, encoded, max_length)
        num_bytes = sum(4 * x.numel() if x.is_floating_point() else x.nbytes for x in row.inputs.values())
        ids = row.inputs[INPUT_IDS][0].tolist()
        return json.dumps([text, ids, row.pixel_digest, num_bytes, row.preparation_bytes]).encode()

    return answer
