"""Rows of an input and a target, for models of an encoder and a decoder: token ids of both."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regstream.data.batch_policy import BatchPolicy
from regstream.data.row_checks import RowWarnings
from regstream.data.row_reader import INPUT_IDS, Row, count_rows, read_rows, sample_indices
from regstream.data.stored_inputs import DECODER_INPUT_IDS
from regstream.data.tensor_rows import read_token_rows
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.data.tokens import TokenIds, validate_token_ids
from regstream.errors import InputError
from regstream.manifest.schema import Calibration
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts

#: The field of a target's token ids, as they are predicted.
LABELS = "labels"
#: What marks a label that is not predicted, as padding is.
_NO_LABEL = -100


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


@dataclass(frozen=True)
class TargetReader:
    """How targets are read: `target` names their field, and `shift` makes of labels (1, L) what the decoder reads."""

    target: str
    shift: Callable[[Tensor], Tensor]
    folder: Path  # of the tokenizer
    max_length: int
    seed: int  # of the sample

    def read(self, path: Path, warnings: RowWarnings, tokenizer: SharedTokenizer) -> list[tuple[str, TargetRow]]:
        """The sampled rows, each with its location.

        Raises:
            InputError: the file cannot be read, or a row lacks its input or its target.
        """
        calibration = warnings.calibration
        if path.is_dir():
            raise InputError(f"{path}: expected a file of rows with an input and a target, found a folder")
        if path.suffix == ".safetensors":
            inputs = read_token_rows(path, calibration, self.max_length, self.seed)
            targets = read_token_rows(path, calibration, self.max_length, self.seed, name=self.target)
            return self._joined(inputs, targets)
        num_rows = count_rows(path)
        if num_rows == 0:
            raise InputError(f"{path}: no rows")
        warnings.of_few(num_rows)
        warnings.of_many(num_rows)
        indices = sample_indices(num_rows, calibration.rows, self.seed, calibration.part)
        inputs = self._read(path, calibration.field, indices, tokenizer)
        targets = self._read(path, self.target, indices, tokenizer, is_target=True)
        return self._joined(inputs, targets)

    def _joined(
        self, inputs: Sequence[tuple[str, TokenIds]], targets: Sequence[tuple[str, TokenIds]]
    ) -> list[tuple[str, TargetRow]]:
        return [(where, self._row(ids, target)) for (where, ids), (_, target) in zip(inputs, targets, strict=True)]

    def _read(
        self, path: Path, field: str, indices: list[int], tokenizer: SharedTokenizer, *, is_target: bool = False
    ) -> list[tuple[str, TokenIds]]:
        rows = read_rows(path, field, indices)
        if field in (INPUT_IDS, LABELS, DECODER_INPUT_IDS):
            return [(row.location, validate_token_ids(_without_unlabelled(row), self.max_length)) for row in rows]
        tokenize = tokenizer.get(field, self.folder, self.max_length, is_target=is_target)
        return [(row.location, tokenize(row)) for row in rows]

    def _row(self, input_ids: TokenIds, target: TokenIds) -> TargetRow:
        if self.target == DECODER_INPUT_IDS:
            return TargetRow(input_ids, target, target[1:])
        shifted = self.shift(torch.from_numpy(target).long()[None])[0]
        return TargetRow(input_ids, shifted.numpy().astype(np.int32), target)


def _without_unlabelled(row: Row) -> Row:
    """The row without what marks padding among labels."""
    is_list = isinstance(row.value, list)
    return Row(row.location, [token for token in row.value if token != _NO_LABEL] if is_list else row.value)


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
