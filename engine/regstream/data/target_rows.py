"""Rows of an input and a target, for models of an encoder and a decoder: token ids of both."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regstream.data.id_map import IdMap, map_rows
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


@dataclass(frozen=True)
class TargetReader:
    """How targets are read: `target` names their field, and `shift` makes of labels (1, L) what the decoder reads."""

    target: str
    shift: Callable[[Tensor], Tensor]
    folder: Path  # of the tokenizer
    max_length: int
    id_map: IdMap | None = None  # of ids in the rows

    def read(
        self, path: Path, warnings: RowWarnings, seed: int, tokenizer: SharedTokenizer
    ) -> list[tuple[str, TargetRow]]:
        """The sampled rows, each with its location.

        Raises:
            InputError: the file cannot be read, or a row lacks its input or its target.
        """
        calibration = warnings.calibration
        if path.is_dir():
            raise InputError(f"{path}: expected a file of rows with an input and a target, found a folder")
        if path.suffix == ".safetensors":
            inputs = read_token_rows(path, calibration, self.max_length, seed)
            targets = read_token_rows(path, calibration, self.max_length, seed, name=self.target)
            return self._joined(*(map_rows(self.id_map, path, rows) for rows in (inputs, targets)))
        num_rows = count_rows(path)
        if num_rows == 0:
            raise InputError(f"{path}: no rows")
        warnings.of_few(num_rows)
        warnings.of_many(num_rows)
        indices = sample_indices(num_rows, calibration.rows, seed, calibration.part)
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
            ids = [(row.location, validate_token_ids(_without_unlabelled(row), self.max_length)) for row in rows]
            return map_rows(self.id_map, path, ids)
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
