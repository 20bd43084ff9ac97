"""From what a manifest asks for to batches: rows drawn by the seed, checked, sorted by length."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.image_preparation import PreparedImages
from regstream.data.images import Encoded, FolderImages, TableImages
from regstream.data.pixels import PixelRows, Pixels, StoredPixels
from regstream.data.row_sources import choose, count_rows, read_rows
from regstream.data.tensor_rows import read_token_rows
from regstream.data.tokenizer_process import TokenizerProcess
from regstream.data.tokens import TokenIds, given_ids
from regstream.errors import InputError
from regstream.manifest.schema import Calibration
from regstream.models.batch import Batch
from regstream.models.config.shape import vocabulary
from regstream.models.family import Family
from regstream.models.images import image_shape


class CalibrationSet(Protocol):
    """Rows in batches of a fixed composition, which is part of a run's identity."""

    @property
    def batches(self) -> Sequence[Batch]:
        """The composition: the lengths of the rows of each batch, in tokens of the hidden states."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the rows as the model sees them, and of their batches."""
        ...

    @property
    def input_bytes(self) -> int:
        """The size of the largest batch's inputs."""
        ...

    @property
    def decoding_bytes(self) -> int:
        """What decoding one of its images takes, at most; 0 for rows that are no images."""
        ...

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """What the model's forward takes for a batch."""
        ...


class TokenRows:
    """Rows of token ids, longest first, so that rows of like length share a batch and the largest comes first."""

    decoding_bytes = 0

    def __init__(self, rows: Sequence[TokenIds], composition: BatchPolicy) -> None:
        ordered = sorted(rows, key=len, reverse=True)
        self._batches = list(composition.batches(ordered, len))
        self.batches = tuple(Batch(tuple(map(len, rows))) for rows in self._batches)
        self.digest = _digest(self._batches)

    @property
    def input_bytes(self) -> int:
        """Of ids, at eight bytes."""
        return 8 * max(rows * length for rows, length in (batch.shape for batch in self.batches))

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`input_ids` (B, L) padded with 0 on the right, and the mask where anything is padded."""
        del dtype
        batch = self.batches[index]
        ids_BL = torch.zeros(batch.shape, dtype=torch.long)
        for row, ids in enumerate(self._batches[index]):
            ids_BL[row, : len(ids)] = torch.from_numpy(ids)
        mask = batch.attention_mask(device)
        return {"input_ids": ids_BL.to(device)} | ({} if mask is None else {"attention_mask": mask})

    def token_ids(self, index: int) -> list[Tensor]:
        """Each row's ids, unpadded."""
        return [torch.from_numpy(ids).long() for ids in self._batches[index]]


def load_calibration(
    calibration: Calibration,
    *,
    family: Family,
    config: PreTrainedConfig,
    base: Path,
    seed: int,
    warn: Callable[[str], None],
    widest: int = 0,
    positions: int | None = None,
    drawing: DatasetSampler | None = None,
    label: str = "label",
) -> CalibrationSet:
    """Read a calibration set. `base` is the folder with the tokenizer, or with the image processor's settings.

    Where the manifest does not say how many rows make a batch, `widest` does: the features of the blocks' widest
    activation. `positions` are those that the model has learned, where it has: no row is longer. `drawing` draws the
    rows of data sets of the hub; `label` is the column of images' labels, should any be asked for.

    Raises:
        InputError: it cannot be read, has no rows, or a row is empty, of the wrong kind, or outside the vocabulary.
    """
    path, field = calibration.path, _field(calibration, family)
    composition = BatchPolicy(calibration.batch_rows, widest)
    path = path or (drawing or DatasetSampler()).table(calibration, field, seed, label)
    if family.rows == "pixel_values":
        images = _pixels(path, field, label, config, base)
        pixels = PixelRows(images, family, config, choose(len(images), calibration.rows, seed), composition)
        _warn_if_few(path, len(pixels), calibration, warn)
        return pixels
    if path.is_dir():
        raise InputError(f"{path}: expected a file of rows; a folder of images is for a model that reads images")
    max_length = min(calibration.max_length, positions or calibration.max_length)
    rows = _token_rows(calibration, path, base, max_length, seed)
    _warn_if_few(path, len(rows), calibration, warn)
    _warn_if_cut(path, [ids for _, ids in rows], max_length, calibration.max_length, warn)
    _check_vocabulary(path, [ids for _, ids in rows], [place for place, _ in rows], vocabulary(config))
    return TokenRows([ids for _, ids in rows], composition)


def _field(calibration: Calibration, family: Family) -> str:
    """What rows are taken from."""
    is_default = calibration.field == "text" and family.rows == "pixel_values"
    return "image" if is_default else calibration.field


def _pixels(path: Path, column: str, label: str, config: PreTrainedConfig, base: Path) -> Pixels:
    """Images by what holds them."""
    if path.suffix == ".safetensors" and not path.is_dir():
        return StoredPixels(path, image_shape(config))
    if path.is_dir():
        images: Encoded = FolderImages(path)
    elif path.suffix == ".parquet":
        images = TableImages(path, column, label)
    else:
        raise InputError(f"{path}: expected a folder of images, a .parquet of them, or a .safetensors of pixel_values")
    if not len(images):
        raise InputError(f"{path}: no images")
    return PreparedImages(path, images, base, image_shape(config))


def _token_rows(
    calibration: Calibration, path: Path, tokenizer: Path, max_length: int, seed: int
) -> list[tuple[str, TokenIds]]:
    if path.suffix == ".safetensors":
        return read_token_rows(path, calibration.rows, max_length, seed)
    num_rows = count_rows(path)
    if num_rows == 0:
        raise InputError(f"{path}: no rows")
    rows = read_rows(path, calibration.field, choose(num_rows, calibration.rows, seed))
    if calibration.field == "input_ids":
        return [(row.place, given_ids(row, max_length)) for row in rows]
    with TokenizerProcess(calibration.field, tokenizer, max_length) as tokenize:
        return [(row.place, tokenize(row)) for row in rows]


def _warn_if_cut(path: Path, rows: list[TokenIds], max_length: int, asked: int, warn: Callable[[str], None]) -> None:
    """Tell of rows that are as long as the positions that a model has learned, which are fewer than were asked for."""
    num_cut = sum(len(ids) >= max_length for ids in rows)
    if num_cut and max_length < asked:
        warn(
            f"{path.name}: {num_cut} of {len(rows)} rows are cut to {max_length:,} tokens, the positions that the model"
            f" has learned; max_length is {asked:,}"
        )


def _warn_if_few(path: Path, found: int, calibration: Calibration, warn: Callable[[str], None]) -> None:
    if calibration.rows is not None and found < calibration.rows:
        # The file's name only: warnings are published, and tell nothing of the machine.
        warn(f"{path.name}: {found} rows where {calibration.rows} were asked for; going on with {found}")


def _check_vocabulary(path: Path, rows: list[TokenIds], places: list[str], vocabulary: int) -> None:
    for ids, place in zip(rows, places, strict=True):
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if len(outside):
            where = f"{path.parent / place}" if place.startswith(path.name) else f"{path}: {place}"
            raise InputError(f"{where}: token id {outside[0]} is outside the vocabulary of {vocabulary:,}")


def _digest(batches: Sequence[Sequence[TokenIds]]) -> str:
    digest = hashlib.sha256()
    for rows in batches:
        digest.update(f"batch {len(rows)}\n".encode())
        for ids in rows:
            digest.update(f"row {len(ids)}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()
