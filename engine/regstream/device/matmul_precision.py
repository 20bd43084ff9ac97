"""How a matrix product is formed: float32 tensors that hold narrower values are multiplied by faster units, exactly.

A product of two bfloat16 values (8 significant bits each) is exact in float32. Units that multiply such values (AVX512
and AMX in bfloat16, NVIDIA's tensor cores in TF32 with 11 bits, which hold float16 too) and add in float32 therefore
form the same products; as ever, only the additions round.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_BACKENDS: Any = torch.backends  # untyped
#: By device: the torch setting for float32 products, and its value for tensors that hold values of a dtype.
_NARROW: dict[str, tuple[Any, dict[torch.dtype, str]]] = {
    "cpu": (_BACKENDS.mkldnn.matmul, {torch.bfloat16: "bf16"}),
    "cuda": (_BACKENDS.cuda.matmul, {torch.bfloat16: "tf32", torch.float16: "tf32"}),
}


@dataclass(frozen=True)
class MatmulPrecision:
    """The dtype of the tensors that are multiplied, and the dtype that every value of theirs came from."""

    dtype: torch.dtype
    values: torch.dtype

    @contextmanager
    def exact_fast_matmul(self, device: torch.device) -> Iterator[None]:
        """Form products in the fastest way that keeps them exact. Nothing else may be multiplied within the context."""
        backend, precision = self._narrow(device)
        if precision is None:
            yield
            return
        before, backend.fp32_precision = backend.fp32_precision, precision
        try:
            yield
        finally:
            backend.fp32_precision = before

    def uses_narrow_units(self, device: torch.device) -> bool:
        """Whether units for narrower values form it."""
        return self._narrow(device)[1] is not None

    def _narrow(self, device: torch.device) -> tuple[Any, str | None]:
        backend, precisions = _NARROW.get(device.type, (None, {}))
        return backend, precisions.get(self.values) if self.dtype == torch.float32 else None


def default_precision(dtype: torch.dtype) -> MatmulPrecision:
    """A product of tensors that may hold any value of their dtype."""
    return MatmulPrecision(dtype, dtype)
