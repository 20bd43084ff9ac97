"""How a matrix product is formed: narrower values are multiplied by faster units into float32 sums, exactly.

A product of two bfloat16 values (8 significant bits each) or two float16 values (11 bits) is exact in float32. Units
that multiply such values and add in float32 therefore form the same products; as ever, only the additions round. A
processor's (AVX512 and AMX in bfloat16) are asked by float32 tensors that hold narrower values; an accelerator
multiplies the narrower tensors themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regstream.device.accelerator_kinds import KINDS

_BACKENDS: Any = torch.backends  # untyped
#: The processor's setting for float32 products, and its value for tensors that hold values of a dtype.
_PROCESSOR: Any = _BACKENDS.mkldnn.matmul
_PROCESSOR_USERS = (_PROCESSOR, _BACKENDS.mkldnn.conv)
_PROCESSOR_UNITS = {torch.bfloat16: "bf16"}
_NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class MatmulPrecision:
    """The dtype of the sums of a product, and the dtype that every value multiplied came from."""

    dtype: torch.dtype
    values: torch.dtype

    def operand_dtype(self, device: torch.device) -> torch.dtype:
        """The dtype of the tensors that are multiplied: the values' own where the device sums them in float32."""
        is_own = self.dtype == torch.float32 and self.values in _NARROW and multiplies_into_float32(device)
        return self.values if is_own else self.dtype

    @contextmanager
    def exact_fast_matmul(self, device: torch.device) -> Iterator[None]:
        """Form products in the fastest way that keeps them exact. Nothing else may be multiplied within the context."""
        precision = self._processor_units(device)
        if precision is None:
            yield
            return
        before, _PROCESSOR.fp32_precision = _PROCESSOR.fp32_precision, precision
        try:
            yield
        finally:
            _PROCESSOR.fp32_precision = before

    def uses_narrow_units(self, device: torch.device) -> bool:
        """Whether units for narrower values form it."""
        return self._processor_units(device) is not None or self.operand_dtype(device) != self.dtype

    def _processor_units(self, device: torch.device) -> str | None:
        is_asked = device.type == "cpu" and self.dtype == torch.float32
        return _PROCESSOR_UNITS.get(self.values) if is_asked else None


def default_precision(dtype: torch.dtype) -> MatmulPrecision:
    """A product of tensors that may hold any value of their dtype."""
    return MatmulPrecision(dtype, dtype)


def multiplies_into_float32(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 and float16 tensors into float32 sums, without a float32 copy of them."""
    return device.type in KINDS and KINDS[device.type].multiplies_into_float32


def add_product(into_NP: Tensor, left_NK: Tensor, right_KP: Tensor, *, scale: float = 1.0, beta: float = 1.0) -> None:
    """Overwrite `into_NP` by `beta` times itself plus the product times `scale`.

    Both factors have the sums' dtype, or a narrower one, and then the sums are float32.
    """
    dtype = into_NP.dtype
    if left_NK.dtype == dtype:
        into_NP.addmm_(left_NK, right_KP, alpha=scale, beta=beta)
    elif multiplies_into_float32(into_NP.device):
        torch.addmm(into_NP, left_NK, right_KP, out_dtype=dtype, alpha=scale, beta=beta, out=into_NP)
    else:
        into_NP.addmm_(left_NK.to(dtype), right_KP.to(dtype), alpha=scale, beta=beta)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Have float32 products and convolutions, and sums of narrower products, keep float32's digits: for a whole run."""
    if device.type in KINDS:
        with KINDS[device.type].float32_products():
            yield
        return
    before = [user.fp32_precision for user in _PROCESSOR_USERS]
    try:
        for user in _PROCESSOR_USERS:
            user.fp32_precision = "ieee"
        yield
    finally:
        for user, precision in zip(_PROCESSOR_USERS, before, strict=True):
            user.fp32_precision = precision
