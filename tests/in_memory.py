"""Methods by name, and tensors in memory in place of files, for a method's own formula."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Merge
from regstream.methods import make_method
from regstream.methods.method import Method
from regstream.methods.random_masks import mask_key


def method(name: str, **options: Any) -> Method:
    merge = Merge(method=name, base=ModelRef(hub_id="org/base"), output="/out", **options)  # type: ignore[arg-type]
    return make_method(merge.method, merge.options)


class Values:
    """A `TensorSource` of tensors in memory, in two parts; a linear's weight may be stored as (in, out)."""

    def __init__(
        self,
        base: Tensor,
        candidates: Sequence[Tensor],
        shares: Sequence[float] | None = None,
        scales: Sequence[float | None] | None = None,
        densities: Sequence[float | None] | None = None,
        *,
        transposed: bool = False,
    ) -> None:
        self._base, self._candidates, self._transposed = base, candidates, transposed
        self.num_candidates = len(candidates)
        self.shares = shares or [1.0] * len(candidates)
        self.scales = scales or [None] * len(candidates)
        self.densities = densities or [None] * len(candidates)
        self.is_linear = base.ndim == 2

    def parts(self) -> Iterator[slice]:
        half = self._base.numel() // 2
        yield from (slice(0, half), slice(half, self._base.numel()))

    def base(self, part: slice) -> Tensor:
        return self.as_stored(self._base)[part].clone()

    def candidate(self, index: int, part: slice) -> Tensor:
        return self.as_stored(self._candidates[index])[part].clone()

    def prior_model(self, part: slice) -> Tensor:
        raise AssertionError("none of these formulas reads a prior")

    def mask_key(self, index: int) -> bytes:
        return mask_key(0, "parameter", f"candidate {index}")

    def base_matrix(self) -> Tensor:
        return self._matrix(self._base)

    def candidate_matrix(self, index: int) -> Tensor:
        return self._matrix(self._candidates[index])

    def as_stored(self, weight_OI: Tensor) -> Tensor:
        return (weight_OI.T if self._transposed else weight_OI).reshape(-1)

    def _matrix(self, weight_OI: Tensor) -> Tensor:
        return weight_OI.T.contiguous().T if self._transposed else weight_OI.clone()


def combine(made: Method, source: Values) -> Tensor:
    return torch.cat(list(made.combine(source)))
