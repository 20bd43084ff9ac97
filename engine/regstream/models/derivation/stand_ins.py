"""Small parameters and products in place of a model's own, so that its forward runs at any width in little memory.

Each parameter is one random row, expanded without memory, and its product with an activation is one with a random
matrix of rank two. Both are fixed by the parameter's name: a pass is a deterministic function of its input, in which
two tensors are equal only if they are the same tensor.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from regstream.errors import InputError
from regstream.models.expert_inputs import ADDED_PRODUCTS, PRODUCTS, is_view
from regstream.models.stored_buffers import in_slot, slots_of, stored_buffers
from regstream.models.tensor_arguments import tensors_among

_RANK = 2
#: Numbers that all random vectors are taken from, each from its own place: 2 MiB.
_POOL = 1 << 19


def stand_in_parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """Random numbers for each parameter of a model, expanded to its shape. A tied parameter has that of its source.

    Buffers that checkpoints store are as the model makes them.
    """
    return {name: _row(name, parameter) for name, parameter in model.named_parameters()} | stored_buffers(model)


@contextmanager
def bind_stand_ins(model: PreTrainedModel, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Use these tensors as a model's parameters within the context, by their name."""
    tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
    before: list[tuple[nn.Module, str, Tensor | None]] = []
    for name in (*parameters, *tied):
        source = name if name in parameters else tied[name]
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        before.append((module, leaf, slots_of(module, leaf)[leaf]))
        if source in parameters:
            slots_of(module, leaf)[leaf] = in_slot(module, leaf, parameters[source])
    try:
        yield
    finally:
        for module, leaf, parameter in reversed(before):
            slots_of(module, leaf)[leaf] = parameter


class StandIns(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class
    """Computes products with stand-in parameters, and reports them.

    `on_use(name, operation)` is called for every operation on a parameter, `on_product(name, matrix, operand)` for
    every product with an activation: the matrix as (…, in, out), and the activation as (…, rows, in). Parameters in
    `unknown` are NaN, and so are their products.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        on_use: Callable[[str], object] = lambda *_: None,
        on_product: Callable[[str, Tensor, Tensor], object] = lambda *_: None,
        unknown: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        named = [*parameters.items(), *unknown.items()]
        self._names = {tensor.untyped_storage().data_ptr(): name for name, tensor in named}
        self._unknown = unknown.keys() - parameters.keys()
        self._on_use, self._on_product = on_use, on_product
        self.max_values = 0  # of the largest tensor that any operation returned

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, or its stand-in."""
        del types
        result = self._run(func, args, kwargs or {})
        if not is_view(func):
            self.max_values = max(self.max_values, *(value.numel() for value in tensors_among((result,))), 0)
        return result

    def _run(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        operation = func.overloadpacket
        used = [name for value in tensors_among((*args, *keywords.values())) if (name := self._name(value)) is not None]
        if not used:
            return func(*args, **keywords)
        if func._schema.is_mutable and self._name(args[0]) is not None:
            raise InputError(f"its forward changes its own parameters: {operation} of {self._name(args[0])}")
        if not is_view(func):
            for name in used:
                self._on_use(name)
        if operation is torch.ops.aten.embedding and self._name(args[0]) is not None:
            return self._embedding(*args[:2])
        if operation in PRODUCTS and (product := self._product(*args[:2])) is not None:
            return product
        if operation in ADDED_PRODUCTS and (product := self._product(*args[1:3])) is not None:
            return product * keywords.get("alpha", 1) + args[0] * keywords.get("beta", 1)
        return func(*args, **keywords)

    def _name(self, value: Tensor) -> str | None:
        """The parameter that a tensor is, or is a view of."""
        return None if value.is_meta else self._names.get(value.untyped_storage().data_ptr())

    def _product(self, left: Tensor, right: Tensor) -> Tensor | None:
        """The product of an activation and a parameter in either order; None where both or neither are parameters."""
        left_name, right_name = self._name(left), self._name(right)
        if right_name is not None and left_name is None:
            self._on_product(right_name, right, left)
            return self._low_rank(right_name, right.shape, left)
        if left_name is not None and right_name is None:
            self._on_product(left_name, left.mT, right.mT)
            return self._low_rank(left_name, left.mT.shape, right.mT).mT
        return None

    def _low_rank(self, name: str, shape: torch.Size, operand: Tensor) -> Tensor:
        inner, outer = self._random(name, 0, shape[-2]), self._random(name, 1, shape[-1])
        product: Tensor = (operand.float() @ inner.T / math.sqrt(shape[-2])) @ outer
        return product.to(operand.dtype)

    def _embedding(self, weight: Tensor, ids: Tensor) -> Tensor:
        """A row for each id, different for different ids."""
        first, second = self._random(str(self._name(weight)), 2, weight.shape[-1])
        angles = ids.unsqueeze(-1).float()
        rows: Tensor = first * torch.sin(0.7 * angles + 1) + second * torch.cos(1.3 * angles)
        return rows.to(weight.dtype)

    def _random(self, name: str, side: int, size: int) -> Tensor:
        """Random numbers, (rank, size), fixed by the arguments."""
        if name in self._unknown:
            return torch.full((1, 1), math.nan).expand(_RANK, size)
        count, key = _RANK * size, f"{name} {side}"
        if count > _POOL // 2:
            return torch.randn(_RANK, size, generator=_generator(key))
        start = zlib.crc32(key.encode()) % (_POOL - count)
        return _pool()[start : start + count].view(_RANK, size)


@cache
def _pool() -> Tensor:
    return torch.randn(_POOL, generator=torch.Generator().manual_seed(0))


def _row(name: str, parameter: Tensor) -> Tensor:
    """Uniform numbers from 0.5 to 1.5, which keep a pass finite.

    The matrices of a three-dimensional parameter, as of experts, begin one number after another, and so are told apart;
    so are the rows of a matrix that is no module's weight, which may hold those of experts, two numbers after another.
    """
    strides: tuple[int, ...] = (1, 0, 1) if parameter.dim() == 3 else ()
    if parameter.dim() == 2 and not name.endswith("weight"):
        strides = (2, 1)  # a column's numbers lie apart, so that the strides tell whether a matrix is transposed
    shifts = strides[0] * (parameter.shape[0] - 1) if strides else 0
    size = parameter.shape[-1] + shifts if parameter.dim() else 1
    row = torch.rand(size, generator=_generator(name)).add_(0.5).to(parameter.dtype)
    if strides:
        return row.as_strided(parameter.shape, strides)
    return row.expand(parameter.shape) if parameter.dim() else row[0]


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))
