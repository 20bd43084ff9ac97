"""Rows of an input and a target, for models of an encoder and a decoder: token ids of both."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.id_map import IdMap, map_rows
from regstream.data.non_text_rows import refuse_images_key
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

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the input and of the target."""
        return len(self.input_ids), len(self.decoder_input_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of both."""
        return sum(self.lengths)


class TargetRows:
    """Rows in batches, the longest first. Those of a batch have inputs of one length and targets of one length, so that
    none is padded."""

    decoding_bytes = 0
    is_in_memory = True
    records_arguments = False
    costs = RowCosts()  # of the largest batches, measured when a merge is planned

    def __init__(self, rows: Sequence[TargetRow], batch_policy: BatchPolicy) -> None:
        ordered = sorted(rows, key=lambda row: (row.num_tokens, *row.lengths), reverse=True)
        alike = (list(group) for _, group in groupby(ordered, key=lambda row: row.lengths))
        self._batches = [batch for group in alike for batch in batch_policy.batches(group, lambda row: row.num_tokens)]
        self.batches = tuple(_batch([row.input_ids for row in rows]) for rows in self._batches)
        #: The batches as the decoder reads them.
        self.targets = tuple(_batch([row.decoder_input_ids for row in rows]) for rows in self._batches)
        #: The batches with most tokens or pairs of tokens, and the batches of the longest rows.
        self.largest = _largest(self.batches, self.targets)
        self.input_bytes = 8 * max(sum(row.num_tokens for row in rows) for rows in self._batches)
        self.digest = self._digest()

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`input_ids` and `decoder_input_ids`, (B, L) each."""
        del dtype
        batch, target = self.batches[index], self.targets[index]
        return {INPUT_IDS: batch.input_ids(device), DECODER_INPUT_IDS: target.input_ids(device)}

    def target_labels(self, index: int) -> Tensor:
        """The tokens that the decoder is to predict, (B, L) or (B, L - 1): one at each of its first positions."""
        return torch.from_numpy(np.stack([row.labels for row in self._batches[index]])).long()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for rows in self._batches:
            digest.update(f"batch {len(rows)}\n".encode())
            for row in rows:
                for ids in (row.input_ids, row.decoder_input_ids, row.labels):
                    digest.update(f"ids {len(ids)}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
        return digest.hexdigest()


def _batch(rows: Sequence[TokenIds]) -> Batch:
    return Batch(tuple(map(len, rows)), token_ids=rows)


def _largest(batches: Sequence[Batch], targets: Sequence[Batch]) -> tuple[int, ...]:
    """Where a forward pass takes most: it grows with tokens, and attention of the decoder with pairs of them."""
    sizes = [(b.num_tokens, t.num_tokens, b.shape[1], t.shape[1]) for b, t in zip(batches, targets, strict=True)]
    measures = ((b, t, (b + t) * t_row, b_row, t_row) for b, t, b_row, t_row in sizes)
    return tuple(dict.fromkeys(each.index(max(each)) for each in zip(*measures, strict=True)))


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
    seed: int  # of the sample
    id_map: IdMap | None = None  # of ids in the rows

    def read(
        self,
        warnings: RowWarnings,
        config: PreTrainedConfig,
        policy: Callable[[Sequence[TokenIds]], BatchPolicy],
        tokenizer: SharedTokenizer | None = None,
    ) -> TargetRows:
        """The sampled rows, in batches of the policy for the longer of each row's input and target.

        Raises:
            InputError: the file cannot be read, or a row lacks its input or its target, or has unknown token ids.
        """
        path = warnings.path
        refuse_images_key(path, warnings.calibration.images)
        with nullcontext(tokenizer) if tokenizer else SharedTokenizer() as shared:
            located = self._located(path, warnings, shared)
        for ids in ("input_ids", "decoder_input_ids", "labels"):
            check_token_ids(path, [(where, getattr(row, ids)) for where, row in located], config, have_images=False)
        warnings.of_truncated([row.input_ids for _, row in located], self.max_length)
        warnings.of_truncated([row.decoder_input_ids for _, row in located], self._max_target, what="targets")
        rows = [row for _, row in located]
        return TargetRows(rows, policy([max(row.input_ids, row.decoder_input_ids, key=len) for row in rows]))

    @property
    def _max_target(self) -> int:
        return min(self.max_length, self.decoder.max_positions or self.max_length)

    def _located(self, path: Path, warnings: RowWarnings, tokenizer: SharedTokenizer) -> list[tuple[str, TargetRow]]:
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
            inputs = read_token_rows(path, calibration, self.max_length, self.seed)
            targets = read_token_rows(path, calibration, self._max_target, self.seed, name=self.target)
            inputs, targets = (map_rows(self.id_map, path, rows) for rows in (inputs, targets))
        else:
            indices = sample_indices(num_rows, calibration.rows, self.seed, calibration.part)
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
            ids = [(row.location, validate_token_ids(row, max_length)) for row in rows]
            return map_rows(self.id_map, path, ids)
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
