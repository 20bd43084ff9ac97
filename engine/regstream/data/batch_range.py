"""Consecutive batches of a calibration set: what one rank of a run has of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.data.loading import CalibrationSet, TokenRows
from regstream.data.multimodal import MultimodalRows
from regstream.data.pixels import PixelRows
from regstream.data.stored_inputs import InputRows
from regstream.data.target_rows import TargetRows
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts


@dataclass(frozen=True)
class BatchRange:
    """The batches `part` of `rows`, numbered from 0. What memory they take is that of the whole set, at most."""

    rows: CalibrationSet
    part: range

    @property
    def batches(self) -> tuple[Batch, ...]:
        """As of the set."""
        return self.rows.batches[self.part.start : self.part.stop]

    @property
    def targets(self) -> tuple[Batch, ...]:
        """As of the set."""
        return self.rows.targets[self.part.start : self.part.stop]

    @property
    def digest(self) -> str:
        """Of the set and the range."""
        return f"{self.rows.digest} {self.part.start}-{self.part.stop}"

    def first_token(self, stack: int) -> int:
        """How many tokens of the set come before these batches, as a stack reads them."""
        return sum(batch.num_tokens for batch in stack_batches(self.rows, stack)[: self.part.start])

    @property
    def is_in_memory(self) -> bool:
        """As of the set."""
        return self.rows.is_in_memory

    @property
    def records_arguments(self) -> bool:
        """As of the set."""
        return self.rows.records_arguments

    @property
    def decoding_bytes(self) -> int:
        """As of the set; 0 without batches."""
        return self.rows.decoding_bytes if self.part else 0

    @property
    def input_bytes(self) -> int:
        """As of the set; 0 without batches."""
        return self.rows.input_bytes if self.part else 0

    @property
    def costs(self) -> RowCosts:
        """As of the set; nothing without batches."""
        return self.rows.costs if self.part else RowCosts()

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> Mapping[str, Tensor]:
        """The forward's arguments of a batch."""
        return self.rows.inputs(self.part[index], dtype=dtype, device=device)

    def token_ids(self, index: int) -> list[Tensor]:
        """The ids of each row of a batch, of a set of tokens."""
        assert isinstance(self.rows, TokenRows | MultimodalRows)
        return self.rows.token_ids(self.part[index])

    def target_labels(self, index: int) -> Tensor:
        """What the decoder is to predict of a batch, of a set with targets."""
        assert isinstance(self.rows, TargetRows | InputRows)
        return self.rows.target_labels(self.part[index])

    def labels(self, index: int) -> Tensor:
        """The class of each image of a batch, of a set of images."""
        assert isinstance(self.rows, PixelRows)
        return self.rows.labels(self.part[index])


#: A calibration set, or what one rank has of it.
Rows = CalibrationSet | BatchRange


def stack_batches(rows: Rows, stack: int) -> Sequence[Batch]:
    """The batches as a stack reads them: a decoder reads the targets of the rows."""
    return rows.batches if stack == 0 else rows.targets
