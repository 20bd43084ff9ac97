"""Rows of an input and a target, for models of an encoder and a decoder: token ids of both."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.row_checks import RowWarnings, check_token_ids
from regstream.data.row_reader import INPUT_IDS, LABELS, Row, count_rows, read_rows, sample_indices
from regstream.data.stored_inputs import DECODER_INPUT_IDS, InputRows
from regstream.data.tensor_rows import open_tensor, read_token_rows, without_padding
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.data.tokens import TokenIds, validate_token_ids
from regstream.errors import InputError
from regstream.manifest.schema import Calibration
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts


@dataclass(frozen=True)
class TargetRow:
    """One row: what the encoder reads, what the decoder reads, and what it is to predict at its first positions."""

    input_ids: TokenIds
    decoder_input_ids: TokenIds
    labels: TokenIds


class TargetRows:
    """Rows in batches of one, the longest first: no row is padded."""

    decoding_bytes = 0
    is_in_memory = True
    records_arguments = False
    costs = RowCosts()  # of the longest rows, measured when a merge is planned

    def __init__(self, rows: Sequence[TargetRow]) -> None:
        self._rows = sorted(rows, key=lambda row: len(row.input_ids) + len(row.decoder_input_ids), reverse=True)
        self.batches = tuple(Batch((len(row.input_ids),), token_ids=[row.input_ids]) for row in self._rows)
        #: The batches as the decoder reads them.
        self.targets = tuple(
            Batch((len(row.decoder_input_ids),), token_ids=[row.decoder_input_ids]) for row in self._rows
        )
        #: The rows with the longest input, the longest target, and the longest of both.
        lengths = [batch.num_tokens for batch in self.batches], [batch.num_tokens for batch in self.targets]
        self.largest = tuple(dict.fromkeys((0, *(each.index(max(each)) for each in lengths))))
        self.input_bytes = 8 * max(map(sum, zip(*lengths, strict=True)))
        self.digest = self._digest()

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`input_ids` and `decoder_input_ids`, (1, L) each."""
        del dtype
        batch, target = self.batches[index], self.targets[index]
        return {INPUT_IDS: batch.input_ids(device), DECODER_INPUT_IDS: target.input_ids(device)}

    def target_labels(self, index: int) -> Tensor:
        """The tokens that the decoder is to predict, (L,) or (L - 1,): one at each of its first positions."""
        return torch.from_numpy(self._rows[index].labels).long()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for row in self._rows:
            for ids in (row.input_ids, row.decoder_input_ids, row.labels):
                digest.update(f"ids {len(ids)}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What rows need to know of a model's decoder: `shift` makes of labels (1, L) what it reads.

    `max_positions` is the longest target of learned positions.
    """

    shift: Callable[[Tensor], Tensor]
    max_positions: int | None = None


@dataclass(frozen=True)
class TargetReader:
    """How targets are read: `target` names their field."""

    target: str
    decoder: Decoder
    folder: Path  # of the tokenizer
    max_length: int  # of inputs

    def read(
        self, warnings: RowWarnings, config: PreTrainedConfig, seed: int, tokenizer: SharedTokenizer | None = None
    ) -> TargetRows:
        """The sampled rows.

        Raises:
            InputError: the file cannot be read, or a row lacks its input or its target, or has unknown token ids.
        """
        path = warnings.path
        warnings.of_batch_rows("rows have targets")
        with nullcontext(tokenizer) if tokenizer else SharedTokenizer() as shared:
            located = self._located(path, warnings, seed, shared)
        for ids in ("input_ids", "decoder_input_ids", "labels"):
            check_token_ids(path, [(where, getattr(row, ids)) for where, row in located], config, have_images=False)
        warnings.of_truncated([row.input_ids for _, row in located], self.max_length)
        warnings.of_truncated([row.decoder_input_ids for _, row in located], self._max_target, what="targets")
        return TargetRows([row for _, row in located])

    @property
    def _max_target(self) -> int:
        return min(self.max_length, self.decoder.max_positions or self.max_length)

    def _located(
        self, path: Path, warnings: RowWarnings, seed: int, tokenizer: SharedTokenizer
    ) -> list[tuple[str, TargetRow]]:
        """The rows, each with its location."""
        calibration = warnings.calibration
        if path.is_dir():
            raise InputError(f"{path}: expected a file of rows with an input and a target, found a folder")
        is_of_tensors = path.suffix == ".safetensors"
        num_rows = self._num_tensor_rows(path) if is_of_tensors else count_rows(path)
        if num_rows == 0:
            raise InputError(f"{path}: no rows")
        warnings.of_few(num_rows)
        warnings.of_many(num_rows)
        if is_of_tensors:
            inputs = read_token_rows(path, calibration, self.max_length, seed)
            targets = read_token_rows(path, calibration, self._max_target, seed, name=self.target)
        else:
            indices = sample_indices(num_rows, calibration.rows, seed, calibration.part)
            inputs = self._read(path, calibration.field, indices, tokenizer)
            targets = self._read(path, self.target, indices, tokenizer, is_target=True)
        return [(where, self._row(ids, target)) for (where, ids), (_, target) in zip(inputs, targets, strict=True)]

    def _num_tensor_rows(self, path: Path) -> int:
        """The rows of a file's two tensors, which must be as many: they are sampled by their numbers."""
        with open_tensor(path, INPUT_IDS) as ids, open_tensor(path, self.target) as targets:
            shapes = ids.get_shape(), targets.get_shape()
        if shapes[0][:1] != shapes[1][:1]:
            raise InputError(
                f"{path}: {self.target} has shape {shapes[1]}, {INPUT_IDS} {shapes[0]}; expected as many rows of both"
            )
        return int((shapes[0] or [0])[0])

    def _read(
        self, path: Path, field: str, indices: list[int], tokenizer: SharedTokenizer, *, is_target: bool = False
    ) -> list[tuple[str, TokenIds]]:
        rows, max_length = read_rows(path, field, indices), self._max_target if is_target else self.max_length
        if field == LABELS:
            rows = map(_labels, rows)
        if field in (INPUT_IDS, LABELS, DECODER_INPUT_IDS):
            return [(row.location, validate_token_ids(row, max_length)) for row in rows]
        tokenize = tokenizer.get(field, self.folder, max_length, is_target=is_target)
        return [(row.location, tokenize(row)) for row in rows]

    def _row(self, input_ids: TokenIds, target: TokenIds) -> TargetRow:
        if self.target == DECODER_INPUT_IDS:
            return TargetRow(input_ids, target, target[1:])
        shifted = self.decoder.shift(torch.from_numpy(target).long()[None])[0]
        return TargetRow(input_ids, shifted.numpy().astype(np.int32), target)


def _labels(row: Row) -> Row:
    """The row of labels without what marks padding."""
    value = row.value
    return Row(row.location, value[without_padding(value)] if isinstance(value, list) else value)


def check_stored_targets(path: Path, rows: InputRows, decoder: Decoder, config: PreTrainedConfig) -> None:
    """Refuse targets of stored inputs that the decoder cannot read.

    Raises:
        InputError: names the row, and its unknown token id or its length.
    """
    located = list(rows.located_targets())
    check_token_ids(path, located, config, have_images=True)
    for where, ids in located:
        if decoder.max_positions is not None and len(ids) > decoder.max_positions:
            raise InputError(
                f"{path}: {where}: {DECODER_INPUT_IDS} has {len(ids):,} tokens, and the decoder has learned"
                f" {decoder.max_positions:,} positions; cut it"
            )


def target_field(calibration: Calibration, field: str, architecture: Architecture) -> str | None:
    """The field of the targets of rows; None where the model reads none, or has them among stored inputs.

    Raises:
        InputError: nothing names it, or it is named and the model reads no such field.
    """
    path, target = calibration.path, calibration.target
    is_read = architecture.has_targets and architecture.reads_tokens
    if not is_read and target is not None:
        reason = (
            f"reads the {DECODER_INPUT_IDS} that are stored beside {architecture.modality}"
            if architecture.has_targets
            else "has no decoder beside an encoder that would read it"
        )
        raise InputError(
            f'target = "{target}" names the target of rows, and {architecture.model_class} {reason}; remove target'
        )
    if not is_read or target is not None:
        return target
    if field == INPUT_IDS or (path is not None and path.suffix == ".safetensors"):
        return LABELS
    raise InputError(
        f"{'' if path is None else f'{path}: '}{architecture.model_class} has a decoder, and a row needs a target for"
        ' it; name the field of the target, as in target = "summary"'
    )
