"""Reads one tensor of base, candidates and a prior model for a method's formula."""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.device.profiler import Profiler
from regstream.methods.random_masks import mask_key
from regstream.methods.tensor_source import PART_VALUES
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.step import PlannedParameter


def fill(into: Tensor, values: Iterable[Tensor]) -> None:
    """Fill a tensor with values that come flat, in pieces one after another."""
    flat = into.view(-1)
    for piece in values:
        flat[: piece.numel()].copy_(piece)
        flat = flat[piece.numel() :]


class TensorFiles:
    """A `TensorSource` of files. Parts are on the CPU, matrices on the device that computes."""

    def __init__(self, plan: OpenedMerge, parameter: PlannedParameter, profiler: Profiler) -> None:
        self._plan, self._parameter, self._profiler = plan, parameter, profiler
        self._candidates = [candidate.checkpoint for candidate in plan.candidates]
        self.num_candidates = len(self._candidates)
        self.shares: Sequence[float] = parameter.shares
        self.scales: Sequence[float | None] = parameter.scales
        self.densities: Sequence[float | None] = parameter.densities
        self.is_linear = parameter.is_linear
        self._subtracts_base = plan.combines(parameter) and parameter.method.needs_base

    def parts(self) -> Iterator[slice]:
        """Ranges of flat indices."""
        size = math.prod(self._parameter.shape)
        return (slice(start, min(start + PART_VALUES, size)) for start in range(0, size, PART_VALUES))

    def base(self, part: slice) -> Tensor:
        """A part of the base's values."""
        return self._part(self._plan.base, part)

    def candidate(self, index: int, part: slice) -> Tensor:
        """A part of a candidate's values; for rows that the base lacks, a formula of differences gets the base's."""
        values, base = self._part(self._candidates[index], part), self._plan.base
        spec = base.tensors.get(self._parameter.name)
        if (
            self._subtracts_base and spec is not None and spec.rows is not None
        ):  # no difference from a base has been tuned
            for begin, end, stored in spec.rows.pieces(part.start, part.stop):
                if stored is None:
                    base.read_range(self._parameter.name, begin, values[begin - part.start : end - part.start])
        return values

    def prior_model(self, part: slice) -> Tensor:
        """A part of the prior model's values."""
        assert self._plan.prior_model is not None
        return self._part(self._plan.prior_model, part)

    def mask_key(self, index: int) -> bytes:
        """What random masks of a candidate's values follow from."""
        return mask_key(self._plan.manifest.merge.seed, self._parameter.name, self._plan.candidates[index].name)

    def base_matrix(self) -> Tensor:
        """The base's weight of a linear, (O, I)."""
        return self._matrix(self._plan.base)

    def candidate_matrix(self, index: int) -> Tensor:
        """A candidate's weight of a linear, (O, I)."""
        return self._matrix(self._candidates[index])

    def as_stored(self, weight_OI: Tensor) -> Tensor:
        """The values of a weight, flat, in the order of the files."""
        return (weight_OI.T if self._parameter.transposed else weight_OI).reshape(-1)

    def _part(self, checkpoint: Checkpoint, part: slice) -> Tensor:
        values = torch.empty(part.stop - part.start, dtype=torch.float32)
        with self._profiler.region("reading", num_bytes=values.nbytes):
            checkpoint.read_range(self._parameter.name, part.start, values)
        return values

    def _matrix(self, checkpoint: Checkpoint) -> Tensor:
        weight = torch.empty(self._parameter.shape, dtype=torch.float32, device=self._plan.device)
        with self._profiler.region("reading", num_bytes=weight.nbytes):
            checkpoint.read({self._parameter.name: weight})
        return weight.T if self._parameter.transposed else weight
