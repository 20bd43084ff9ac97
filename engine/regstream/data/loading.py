"""Calibration sets: rows sampled by the seed, checked, sorted by length, and batched."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.encoded_images import EncodedImages, FolderImages, TableImages
from regstream.data.pixels import PixelRows, StoredPixels
from regstream.data.row_reader import INPUT_IDS, count_rows, read_rows, sample_indices
from regstream.data.tensor_rows import read_token_rows
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.data.tokens import TokenIds, validate_token_ids
from regstream.errors import InputError
from regstream.manifest.schema import Calibration, HeldOut
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.config.image_sizes import image_shape
from regstream.models.config.model_sizes import vocab_size

if TYPE_CHECKING:
    from regstream.data.image_processor import ProcessedImages

#: More rows than any published merge takes of a candidate.
_MANY_ROWS = 2048


class TokenRows:
    """Rows of token ids, longest first: rows of similar length share a batch, and the largest batch comes first."""

    decoding_bytes = 0
    is_in_memory = True

    def __init__(self, rows: Sequence[TokenIds], batch_policy: BatchPolicy) -> None:
        ordered = sorted(rows, key=len, reverse=True)
        self._batches = list(batch_policy.batches(ordered, len))
        self.batches = tuple(Batch(tuple(map(len, rows)), token_ids=rows) for rows in self._batches)
        self.digest = _digest(self._batches)
        #: Bytes of the largest batch in int64.
        self.input_bytes = 8 * max(math.prod(batch.shape) for batch in self.batches)

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`input_ids`, (B, L), padded with 0 on the right; and `attention_mask` if there is padding."""
        del dtype
        batch = self.batches[index]
        mask = batch.attention_mask(device)
        return {"input_ids": batch.input_ids(device)} | ({} if mask is None else {"attention_mask": mask})

    def token_ids(self, index: int) -> list[Tensor]:
        """The ids of each row of a batch, without padding."""
        return [torch.from_numpy(ids).long() for ids in self._batches[index]]


#: Rows in batches; which rows share a batch is part of a run's identity.
CalibrationSet = TokenRows | PixelRows


def load_calibration(
    calibration: Calibration,
    *,
    architecture: Architecture,
    config: PreTrainedConfig,
    base: Path,
    seed: int,
    warn: Callable[[str], None],
    max_features: int = 0,
    max_positions: int | None = None,
    sampler: DatasetSampler | None = None,
    tokenizer: SharedTokenizer | None = None,
    label: str = "label",
) -> CalibrationSet:
    """Read a calibration set. `base` is the folder of the tokenizer or the image processor.

    `max_features`, of the blocks' widest activation, decides the size of batches without `batch_rows`. `max_positions`
    is the longest row that the model's learned positions allow, None for any. `label` is the column of image labels.

    Raises:
        InputError: the set cannot be read or has no rows, or a row is empty, of the wrong type, or has a token id
            outside the vocabulary.
    """
    field = "image" if calibration.field == "text" and architecture.modality == "pixel_values" else calibration.field
    path = calibration.path or (sampler or DatasetSampler()).sample(calibration, field, seed, label)
    batch_policy = BatchPolicy(calibration.batch_rows, max_features)
    if architecture.modality == "pixel_values":
        images = _pixel_source(path, field, label, config, base)
        indices = sample_indices(len(images), calibration.rows, seed)
        pixels = PixelRows(images, architecture, config, indices, batch_policy)
        _warn_if_few(path, len(pixels), calibration, warn)
        _warn_if_many(path, len(pixels), calibration, warn)
        return pixels
    if path.is_dir():
        raise InputError(f"{path}: expected a file of rows; a folder of images is for a model that reads images")
    max_length = min(calibration.max_length, max_positions or calibration.max_length)
    located_rows = _token_rows(calibration, path, base, max_length, seed=seed, tokenizer=tokenizer, warn=warn)
    rows = [ids for _, ids in located_rows]
    _warn_if_few(path, len(rows), calibration, warn)
    _warn_if_truncated(path, rows, max_length, calibration.max_length, warn)
    _check_vocabulary(path, located_rows, vocab_size(config))
    return TokenRows(rows, batch_policy)


def _pixel_source(
    path: Path, column: str, label: str, config: PreTrainedConfig, base: Path
) -> "StoredPixels | ProcessedImages":
    if path.suffix == ".safetensors" and not path.is_dir():
        return StoredPixels(path, image_shape(config))
    if path.is_dir():
        images: EncodedImages = FolderImages(path)
    elif path.suffix == ".parquet":
        images = TableImages(path, column, label)
    else:
        raise InputError(f"{path}: expected a folder of images, a .parquet of them, or a .safetensors of pixel_values")
    if not len(images):
        raise InputError(f"{path}: no images")
    # With PIL and what transformers reads images with, which no other model needs.
    from regstream.data.image_processor import ProcessedImages

    return ProcessedImages(path, images, base, image_shape(config))


def _token_rows(
    calibration: Calibration,
    path: Path,
    base: Path,
    max_length: int,
    *,
    seed: int,
    tokenizer: SharedTokenizer | None,
    warn: Callable[[str], None],
) -> list[tuple[str, TokenIds]]:
    """The sampled rows, each with its location."""
    if path.suffix == ".safetensors":
        rows_of_ids = read_token_rows(path, calibration.rows, max_length, seed)
        _warn_if_many(path, len(rows_of_ids), calibration, warn)
        return rows_of_ids
    num_rows = count_rows(path)
    if num_rows == 0:
        raise InputError(f"{path}: no rows")
    _warn_if_many(path, num_rows, calibration, warn)  # before they are tokenized, which takes its time
    rows = read_rows(path, calibration.field, sample_indices(num_rows, calibration.rows, seed))
    if calibration.field == INPUT_IDS:
        return [(row.location, validate_token_ids(row, max_length)) for row in rows]
    with SharedTokenizer() if tokenizer is None else nullcontext(tokenizer) as shared:
        tokenize = shared.get(calibration.field, base, max_length)
        return [(row.location, tokenize(row)) for row in rows]


def _warn_if_truncated(
    path: Path, rows: list[TokenIds], max_length: int, requested_length: int, warn: Callable[[str], None]
) -> None:
    """Warn of rows that learned positions make shorter than `max_length` in the manifest."""
    num_truncated = sum(len(ids) >= max_length for ids in rows)
    if num_truncated and max_length < requested_length:
        warn(
            f"{path.name}: {num_truncated} of {len(rows)} rows are cut to {max_length:,} tokens, the positions that the"
            f" model has learned; max_length is {requested_length:,}"
        )


def _warn_if_few(path: Path, num_rows: int, calibration: Calibration, warn: Callable[[str], None]) -> None:
    if calibration.rows is not None and num_rows < calibration.rows:
        # Without the folder: warnings are published, and must not reveal paths of this machine.
        warn(f"{path.name}: has {num_rows} rows, fewer than rows = {calibration.rows}; using all {num_rows}")


def _warn_if_many(path: Path, num_rows: int, calibration: Calibration, warn: Callable[[str], None]) -> None:
    """Warn of a calibration set that is large only because nobody limited it; held-out rows are often many."""
    if calibration.rows is None and num_rows > _MANY_ROWS and not isinstance(calibration, HeldOut):
        warn(f"{path.name}: rows is not set, so all {num_rows:,} rows are used; rows = 256 samples as many as is usual")


def _check_vocabulary(path: Path, rows: list[tuple[str, TokenIds]], num_ids: int) -> None:
    for location, ids in rows:
        outside = ids[(ids < 0) | (ids >= num_ids)]
        if len(outside):
            where = f"{path.parent / location}" if location.startswith(path.name) else f"{path}: {location}"
            raise InputError(f"{where}: token id {outside[0]} is outside the vocabulary of {num_ids:,}")


def _digest(batches: Sequence[Sequence[TokenIds]]) -> str:
    digest = hashlib.sha256()
    for rows in batches:
        digest.update(f"batch {len(rows)}\n".encode())
        for ids in rows:
            digest.update(f"row {len(ids)}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()
