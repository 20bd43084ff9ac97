"""Sketches of one linear's weights over their out-features: of the merged one, of each candidate's, and of their mean.

A few candidates' are in memory at a time, however many there are; the others are on disk.
"""

import torch
from torch import Tensor

from regstream.linalg.row_sketch import CANDIDATES_AT_A_TIME, RowSketch, weight_sketch
from regstream.planning.step import PlannedParameter
from regstream.storage.scratch_tensors import ScratchTensors


class WeightSketches:
    """The sketches of a linear, filled with parts of its weights: flat ranges of whole rows, as files hold them."""

    def __init__(self, parameter: PlannedParameter, num_candidates: int, device: torch.device, files: ScratchTensors):
        self._parameter, self._device, self._files = parameter, device, files
        self.num_candidates = num_candidates
        self._merged = weight_sketch(parameter.out_in, device)
        self._mean_SI = torch.zeros_like(self._merged.sums_SI)
        self._candidates: dict[int, RowSketch] = {}

    @property
    def merged(self) -> Tensor:
        """That of the merged weight, (S, I)."""
        return self._merged.sums_SI

    @property
    def mean(self) -> Tensor:
        """That of the mean of all candidates, (S, I), once all are added."""
        return self._mean_SI

    def groups(self) -> list[range]:
        """The candidates, by index, as they are to be added: those of a group together."""
        starts = range(0, self.num_candidates, CANDIDATES_AT_A_TIME)
        return [range(start, min(start + CANDIDATES_AT_A_TIME, self.num_candidates)) for start in starts]

    def begin(self, group: range) -> None:
        """Make room for the candidates of a group."""
        for index, sketch in self._candidates.items():
            self._files.put(f"weight-{index}", sketch.sums_SI.cpu())
        self._candidates.clear()
        self._candidates = {index: weight_sketch(self._parameter.out_in, self._device) for index in group}

    def add_merged(self, values_P: Tensor, part: slice) -> None:
        """Add a part of the merged weight."""
        self._add(self._merged, values_P, part)

    def add(self, index: int, values_P: Tensor, part: slice) -> None:
        """Add a part of a candidate's weight."""
        self._add(self._candidates[index], values_P, part)

    def end(self) -> None:
        """All of the group's parts are added."""
        for sketch in self._candidates.values():
            self._mean_SI.add_(sketch.sums_SI, alpha=1 / self.num_candidates)

    def read(self, index: int) -> Tensor:
        """That of a candidate, (S, I)."""
        if index in self._candidates:
            return self._candidates[index].sums_SI
        return self._files.get(f"weight-{index}").to(self._device)

    def _add(self, sketch: RowSketch, values_P: Tensor, part: slice) -> None:
        row = self._parameter.shape[1]
        rows, first = values_P.view(-1, row), part.start // row
        if self._parameter.transposed:  # rows of the file are in-features
            sketch.add(rows.T, first=0, columns=slice(first, first + len(rows)))
        else:
            sketch.add(rows, first=first)
