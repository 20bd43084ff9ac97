"""What became of the candidates' changes of one parameter, measured part by part on what was written.

With Δᵢ = Wᵢ − W₀ the merged parameter W keeps ⟨W − W₀, Δᵢ⟩/‖Δᵢ‖² of candidate i's change: all of it 1, none of it 0.

Shape suffix: P values of a part.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.mean import CHUNK_VALUES
from regstream.checkpoint.reader import TensorReader
from regstream.errors import NonFiniteInputError
from regstream.output.record_schema import CandidateChange, ChangeRecord
from regstream.planning.plan import Plan
from regstream.planning.step import PlannedParameter
from regstream.runtime.weight_sketches import WeightSketches


class ChangeMeter:
    """Measures the parameters of a step in the same three buffers."""

    def __init__(self, plan: Plan, result: TensorReader, warn: Callable[[str], None]) -> None:
        """`result` reads the parameters as they were written; `warn` is told of tensors that cannot be compared."""
        self._plan, self._result, self._warn = plan, result, warn
        self._buffers = [torch.empty(CHUNK_VALUES, dtype=torch.float32, device=plan.device) for _ in range(3)]

    def measure(self, parameter: PlannedParameter, sketches: WeightSketches | None) -> ChangeRecord | None:
        """Measure a parameter and, of a linear's weight, fill the `sketches`; None where the base has no values of it.

        Values that are not finite are left out, with a warning: the merge would have refused those that it uses.

        Raises:
            InputError: a checkpoint cannot be read.
        """
        if parameter.name not in self._plan.base.tensors:
            return None
        readers, num_candidates = self._readers(parameter), len(self._plan.candidates)
        # By candidate ‖Δ‖² and ⟨W − W₀, Δ⟩; the last row has ‖W₀‖².
        sums = torch.zeros(num_candidates + 1, 2, dtype=torch.float64, device=self._plan.device)
        for group in [range(num_candidates)] if sketches is None else sketches.groups():
            if sketches is not None:
                sketches.begin(group)
            for part in _parts(parameter.shape):
                if not self._add_part(parameter.name, part, group, readers=readers, sums=sums, sketches=sketches):
                    return None
            if sketches is not None:
                sketches.end()
        return self._record(parameter, readers, sums)

    def _add_part(
        self,
        name: str,
        part: slice,
        group: range,
        *,
        readers: dict[int, Checkpoint | None],
        sums: Tensor,
        sketches: WeightSketches | None,
    ) -> bool:
        """Add a part of base, result and the candidates of a group; False where the base's values are not finite."""
        base_P = self._read_finite(self._plan.base, name, part, 0)
        if base_P is None:
            return False
        merged_P = self._read(self._result, name, part, 1)
        if group.start == 0:
            sums[-1, 0] += torch.dot(base_P, base_P)
            if sketches is not None:
                sketches.add_merged(merged_P, part)
        change_P = merged_P.sub_(base_P)
        for index in [index for index in group if index in readers]:
            reader = readers[index]
            own_P = base_P if reader is None else self._read_finite(reader, name, part, 2)
            if own_P is None:
                del readers[index]
                continue
            if sketches is not None:
                sketches.add(index, own_P, part)
            if reader is not None:
                difference_P = own_P.sub_(base_P[: len(own_P)])
                sums[index, 0] += torch.dot(difference_P, difference_P)
                sums[index, 1] += torch.dot(difference_P, change_P[: len(own_P)])
        return True

    def _readers(self, parameter: PlannedParameter) -> dict[int, Checkpoint | None]:
        """The candidates that have the parameter, by index; None in place of those whose tensor is the base's."""
        readers: dict[int, Checkpoint | None] = {}
        for index, candidate in enumerate(self._plan.candidates):
            own = candidate.checkpoint.tensors.get(parameter.name)
            if own is not None and own.shape[1:] == parameter.shape[1:]:
                is_base = candidate.checkpoint.shares_tensor(self._plan.base, parameter.name)
                readers[index] = None if is_base else candidate.checkpoint
        return readers

    def _read(self, reader: TensorReader, name: str, part: slice, buffer: int) -> Tensor:
        """Values of a part: of a vocabulary with fewer rows than the result's, as many as it has."""
        count = min(part.stop, math.prod(reader.tensors[name].shape)) - part.start
        if len(self._buffers[buffer]) < count:  # one row of a matrix has more values
            self._buffers[buffer] = self._buffers[buffer].new_empty(count)
        values_P = self._buffers[buffer][: max(0, count)]
        if count > 0:
            reader.read_range(name, part.start, values_P)
        return values_P

    def _read_finite(self, checkpoint: Checkpoint, name: str, part: slice, buffer: int) -> Tensor | None:
        """As `_read`; None, with a warning, where values are not finite."""
        try:
            return self._read(checkpoint, name, part, buffer)
        except NonFiniteInputError as error:
            self._warn(f"{error}; the merge does not use this tensor, and its change is not measured")
            return None

    def _record(
        self, parameter: PlannedParameter, readers: Mapping[int, Checkpoint | None], sums: Tensor
    ) -> ChangeRecord:
        *own, (base, _) = sums.cpu().tolist()
        changes = {}
        for index in readers:
            square, product = own[index]
            kept = _rounded(product / square) if square > 0 else None
            changes[self._plan.candidates[index].name] = CandidateChange(norm=_rounded(math.sqrt(square)), kept=kept)
        name, base_norm = parameter.recorded_name, _rounded(math.sqrt(base))
        return ChangeRecord(parameter=name, rule=parameter.rule, base_norm=base_norm, candidates=changes)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Ranges of flat indices: whole rows, about `CHUNK_VALUES` at a time."""
    num_values, row = math.prod(shape), math.prod(shape[1:])
    at_a_time = max(1, CHUNK_VALUES // max(1, row)) * row
    return (slice(start, min(start + at_a_time, num_values)) for start in range(0, num_values, max(1, at_a_time)))


def _rounded(value: float) -> float:
    """To what a reader needs: six digits."""
    return float(f"{value:.6g}")
