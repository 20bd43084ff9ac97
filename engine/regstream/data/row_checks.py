"""Warnings of numbers and lengths of rows that are not as asked for, and token ids beyond the vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from regstream.data.tokens import TokenIds
from regstream.errors import InputError
from regstream.manifest.schema import Calibration, HeldOut
from regstream.models.config.model_sizes import vocab_size

#: More rows than any published merge takes of a candidate.
_MANY_ROWS = 2048


@dataclass(frozen=True)
class RowWarnings:
    """Warns of one calibration set. The file's name is without the folder: warnings are published, and must not reveal
    paths of this machine."""

    path: Path
    calibration: Calibration
    warn: Callable[[str], None]

    def of_few(self, num_rows: int) -> None:
        """Warn of fewer rows than the manifest asks for."""
        if self.calibration.rows is not None and num_rows < self.calibration.rows:
            asked = f"fewer than rows = {self.calibration.rows}; using all {num_rows}"
            self.warn(f"{self.path.name}: has {num_rows} rows, {asked}")

    def of_many(self, num_rows: int) -> None:
        """Warn of a calibration set that is large only because nobody limited it; held-out rows are often many."""
        if self.calibration.rows is None and num_rows > _MANY_ROWS and not isinstance(self.calibration, HeldOut):
            self.warn(
                f"{self.path.name}: rows is not set, so all {num_rows:,} rows are used; rows = 256 samples as many as"
                " is usual"
            )

    def of_truncated(self, rows: Sequence[TokenIds], max_length: int, what: str = "rows") -> None:
        """Warn of rows, or of their targets, that learned positions make shorter than `max_length` in the manifest."""
        num_truncated = sum(len(ids) >= max_length for ids in rows)
        if num_truncated and max_length < self.calibration.max_length:
            self.warn(
                f"{self.path.name}: {num_truncated} of {len(rows)} {what} are cut to {max_length:,} tokens, the"
                f" positions that the model has learned; max_length is {self.calibration.max_length:,}"
            )

    def of_batch_rows(self, reason: str) -> None:
        """Warn of `batch_rows` where each row is a batch of its own, for a reason."""
        if self.calibration.batch_rows not in (None, 1):
            self.warn(
                f"{self.path.name}: batch_rows = {self.calibration.batch_rows} has no effect, each row is a batch of"
                f" its own: {reason}"
            )


def place_of_row(path: Path, location: str) -> str:
    """The place of a row, for a message: its location may name the file."""
    return f"{path.parent / location}" if location.startswith(path.name) else f"{path}: {location}"


def check_token_ids(
    path: Path, rows: Sequence[tuple[str, NDArray[np.integer[Any]]]], config: PreTrainedConfig, *, have_images: bool
) -> None:
    """Refuse token ids that the model has no embedding for, and places for images in rows that have none.

    Raises:
        InputError: names the row and the id.
    """
    num_ids = vocab_size(config)
    image = None if have_images else getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    for location, ids in rows:
        where = place_of_row(path, location)
        outside = ids[(ids < 0) | (ids >= num_ids)]
        if len(outside):
            raise InputError(f"{where}: token id {outside[0]} is outside the vocabulary of {num_ids:,}")
        if image is not None and (ids == image).any():
            raise InputError(
                f"{where}: the token of an image (id {image}), but no image; name the images' field in images, or give"
                ' each {"type": "image"} of messages its path'
            )
