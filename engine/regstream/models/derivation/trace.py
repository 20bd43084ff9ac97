"""What a forward pass does, in the order in which it happens.

Shape suffixes: N rows of an operand, I inputs of a linear.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from regstream.models.block_wrappers import StopForward
from regstream.models.derivation.stand_ins import StandIns, bind_stand_ins


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What a matrix is multiplied with, known by a digest of its values."""

    digest: bytes
    leading: tuple[int, ...]  # the shape before the last axis

    @classmethod
    def of(cls, x_NI: Tensor) -> "Operand":
        """Of a tensor, whose leading axes count as one."""
        values = x_NI.detach().float().contiguous().numpy()
        digest = hashlib.blake2b(values.data, digest_size=16, salt=str(x_NI.shape[-1]).encode()[:16]).digest()
        return cls(digest=digest, leading=tuple(x_NI.shape[:-1]))


@dataclass(frozen=True, kw_only=True)
class Product:
    """One with a parameter."""

    shape: torch.Size  # of the matrix, (…, in, out)
    operand: Operand
    is_transposed: bool  # the parameter has it as (in, out), not as (out, in)
    matrix: int  # the number of the matrix in a three-dimensional parameter, if it is one of several

    @classmethod
    def of(cls, matrix: Tensor, operand: Operand) -> "Product":
        """Of a matrix (…, in, out) of a stand-in, whose rows are the same numbers."""
        return cls(
            shape=matrix.shape,
            operand=operand,
            is_transposed=matrix.stride(-1) == 1,
            matrix=int(matrix.storage_offset()),
        )


class _Operands:
    """Operands, whose digest is computed once for a tensor that several products in a row read."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, int] | None = None
        self._digest = b""

    def of(self, x_NI: Tensor) -> Operand:
        """What a product reads; its leading axes count as one."""
        if self._last is None or not _is_same(x_NI, *self._last):
            # The tensor is kept, so that no other takes its place in memory.
            self._last, self._digest = (x_NI.detach(), x_NI._version), Operand.of(x_NI).digest
        return Operand(digest=self._digest, leading=tuple(x_NI.shape[:-1]))


def _is_same(x_NI: Tensor, last_NI: Tensor, version: int) -> bool:
    """Whether a tensor has the values of the last one, as far as their places in memory tell."""
    return (
        x_NI.data_ptr() == last_NI.data_ptr()
        and x_NI._version == version
        and (x_NI.dtype, x_NI.numel(), x_NI.shape[-1]) == (last_NI.dtype, last_NI.numel(), last_NI.shape[-1])
        and x_NI.is_contiguous()
        and last_NI.is_contiguous()
    )


@dataclass(kw_only=True)
class MemberCall:
    """A call of a module that is in a list of modules."""

    index: int  # in the list
    began: int
    ended: int = -1
    argument: int | str | None  # where the first floating-point tensor came in
    hidden: Tensor | None
    output: Any = None  # its tensors are on the meta device, but for the last call's

    @property
    def hidden_shape(self) -> tuple[int, ...]:
        """Of what came in; empty if no hidden states did."""
        return () if self.hidden is None else tuple(self.hidden.shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of what went out; empty if no hidden states did."""
        return () if self.output_hidden is None else tuple(self.output_hidden.shape)

    @property
    def output_hidden(self) -> Tensor | None:
        """The tensor that the module returns, or the first value of its tuple."""
        first = self.output[0] if isinstance(self.output, tuple | list) and len(self.output) else self.output
        return first if isinstance(first, Tensor) else None


@dataclass(kw_only=True)
class Trace:
    """A pass. Times count what happened before."""

    inputs: Mapping[str, Any]
    members: dict[str, list[MemberCall]] = field(default_factory=lambda: defaultdict(list))  # by the path of the list
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of each module
    uses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # times, by parameter
    products: dict[str, list[Product]] = field(default_factory=lambda: defaultdict(list))
    linear_inputs: dict[str, list[tuple[int, Operand]]] = field(default_factory=lambda: defaultdict(list))
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=lambda: defaultdict(list))  # what modules read


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear`, GPT-2's `Conv1D`, or one with a weight alone, as routers."""
    if isinstance(module, nn.Linear | Conv1D):
        return True
    own = dict(module.named_parameters())  # also those of modules in it
    num_dims = {name: parameter.dim() for name, parameter in own.items()}
    is_bare = num_dims.pop("weight", 0) == 2 and not isinstance(module, nn.Embedding)
    return is_bare and all(dims == 1 and "." not in name for name, dims in num_dims.items())


def is_transposed(linear: nn.Module) -> bool:
    """Whether a linear stores its weight as (in, out)."""
    return isinstance(linear, Conv1D)


def run_traced(
    model: PreTrainedModel,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Any],
    *,
    until: Sequence[str] | None = None,
) -> Trace:
    """Run a model with stand-in parameters; or only up to the end of the last of the lists `until`, to record these.

    Raises whatever its forward raises.
    """
    trace, clock, operands = Trace(inputs=inputs), count(), _Operands()
    stand_ins = StandIns(parameters)
    if until is None:
        stand_ins = StandIns(
            parameters,
            on_use=lambda name: trace.uses[name].append(next(clock)),
            on_product=lambda name, matrix, operand: trace.products[name].append(
                Product.of(matrix, operands.of(operand))
            ),
        )
    with ExitStack() as stack:
        stack.enter_context(bind_stand_ins(model, parameters))
        for path, module in model.named_modules():
            hook = module.register_forward_pre_hook(_count_calls(trace, path))
            stack.callback(hook.remove)
            if is_linear(module) and until is None:
                stack.callback(module.register_forward_pre_hook(_record_input(trace, path, clock, operands)).remove)
            if isinstance(module, nn.ModuleList) and (until is None or path in until):
                for index, member in enumerate(module):
                    began, ended = _record_member(trace, path, index, clock)
                    stack.callback(member.register_forward_pre_hook(began, with_kwargs=True, prepend=True).remove)
                    stack.callback(member.register_forward_hook(ended).remove)
        if until is not None:
            stack.callback(list(model.get_submodule(until[-1]).children())[-1].register_forward_hook(_stop).remove)
        with torch.no_grad(), stand_ins, suppress(StopForward):
            model(**inputs)
    return trace


def _count_calls(trace: Trace, path: str) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        trace.calls[path] += 1
        if args and isinstance(args[0], Tensor):
            trace.shapes[path].append(tuple(args[0].shape))

    return hook


def _record_input(trace: Trace, path: str, clock: "count[int]", operands: "_Operands") -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            trace.linear_inputs[path].append((next(clock), operands.of(args[0])))

    return hook


def _record_member(trace: Trace, path: str, index: int, clock: "count[int]") -> tuple[Any, Any]:
    def began(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        found = next(((key, value) for key, value in given if _is_hidden(value)), None)
        argument, hidden = (None, None) if found is None else (found[0], found[1].clone())
        if calls := trace.members[path]:  # only what leaves the last member is compared; of others the shape is enough
            calls[-1].output = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), calls[-1].output)
        trace.members[path].append(MemberCall(index=index, began=next(clock), argument=argument, hidden=hidden))

    def ended(_module: nn.Module, _args: object, output: Any) -> None:
        call = next(call for call in reversed(trace.members[path]) if call.index == index)
        call.ended, call.output = next(clock), output

    return began, ended


def _stop(_module: nn.Module, _args: object, output: Any) -> None:
    raise StopForward(output)


def _is_hidden(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
