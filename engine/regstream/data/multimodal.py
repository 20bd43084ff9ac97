"""Rows of text and images, prepared by the base's processor when they are needed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regstream.data.row_images import ImageFile, RowWithImages, rows_with_images
from regstream.data.row_reader import INPUT_IDS
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.data.tokens import TokenIds
from regstream.errors import InputError
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts

if TYPE_CHECKING:  # with PIL and what transformers reads images with, which no other rows need
    from regstream.data.multimodal_processor import MultimodalProcessor, PreparedRow
    from regstream.data.processor_process import MeasuredRow


class MultimodalRows:
    """Rows of text with or without images, longest first. Each is a batch of its own, so there is no padding.

    Memory holds texts and token ids; images are read, decoded and prepared anew in each call of `inputs`.
    """

    is_in_memory = False
    targets: tuple[Batch, ...] = ()
    records_arguments = True  # blocks depend on positions and features that the outer model makes of images
    costs = RowCosts()  # of the largest rows, measured when a merge is planned

    def __init__(
        self, rows: Sequence[tuple[RowWithImages, "MeasuredRow"]], processor: "MultimodalProcessor", max_length: int
    ) -> None:
        self._rows = sorted(rows, key=lambda row: len(row[1].ids), reverse=True)
        self._processor, self._max_length = processor, max_length
        self.batches = tuple(Batch((len(measured.ids),)) for _, measured in self._rows)
        #: Bytes of the inputs of the largest row, floating-point ones in float32.
        self.input_bytes = max(measured.input_bytes for _, measured in self._rows)
        #: Memory for decoding and preparing the images of the row that needs most.
        self.decoding_bytes = max(measured.preparation_bytes for _, measured in self._rows)
        self.digest = self._digest([(measured.ids, measured.pixel_digest) for _, measured in self._rows])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def largest(self) -> tuple[int, ...]:
        """The rows with the most tokens and with the largest images, which have the most of everything."""
        indices = range(len(self._rows))
        return tuple({0, max(indices, key=lambda index: self._rows[index][1].input_bytes)})

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files of all images, each once; none for images in a table."""
        images = (image for row, _ in self._rows for image in row.images)
        return tuple(dict.fromkeys(image.path for image in images if isinstance(image, ImageFile)))

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """The forward's arguments for one row: `input_ids` (1, L) and whatever else the processor makes.

        Raises:
            InputError: an image is missing or damaged, or it or the row's tokens changed.
        """
        row, measured = self._rows[index]
        prepared = self._prepare(index)
        ids = prepared.inputs[INPUT_IDS][0]
        if prepared.pixel_digest != measured.pixel_digest or ids.tolist() != measured.ids.tolist():
            changed = "an image" if prepared.pixel_digest != measured.pixel_digest else "its tokens"
            raise InputError(f"{row.location}: {changed} changed since it was first read; restore it")
        return {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
            for name, value in prepared.inputs.items()
        }

    def located_ids(self) -> list[tuple[str, TokenIds]]:
        """The ids of each row, with its location."""
        return [(row.location, measured.ids) for row, measured in self._rows]

    def token_ids(self, index: int) -> list[Tensor]:
        """The ids of a row."""
        return [torch.from_numpy(self._rows[index][1].ids).long()]

    def read_digest(self) -> str:
        """Compute the digest anew, to detect images and settings that changed since."""
        prepared = (self._prepare(index) for index in range(len(self._rows)))
        return self._digest([(row.inputs[INPUT_IDS][0].numpy(), row.pixel_digest) for row in prepared])

    def _prepare(self, index: int) -> "PreparedRow":
        row, measured = self._rows[index]
        encoded = [image.read() for image in row.images]
        return self._processor.prepare(row.location, measured.text, encoded, self._max_length)

    def _digest(self, rows: Sequence[tuple[TokenIds, str]]) -> str:
        digest = hashlib.sha256(self._processor.settings)
        for ids, pixels in rows:
            digest.update(f"row {len(ids)} {pixels}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
        return digest.hexdigest()


def load_multimodal_rows(
    path: Path,
    field: str,
    images: str | None,
    indices: list[int],
    *,
    base: Path,
    max_length: int,
    tokenizer: SharedTokenizer,
) -> MultimodalRows:
    """Read and prepare once the rows at these indices; `images` is their field or column, if messages lack them.

    Raises:
        InputError: a row or an image cannot be read, or the processor in `base` refuses it.
    """
    prepare = tokenizer.get_processor(field, base, max_length)
    rows = [(row, prepare(row)) for row in rows_with_images(path, field, images, indices)]
    return MultimodalRows(rows, tokenizer.processor(base), max_length)
