"""What is multiplied with the matrices of experts, passed to a callback expert by expert while their module runs.

Shape suffixes: E experts, T tokens, I inputs of an expert's linear.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regstream.models.tensor_arguments import tensors_among

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.bmm}
ADDED_PRODUCTS = {torch.ops.aten.addmm, torch.ops.aten.baddbmm}
#: One operation on devices that have a kernel of its own for it, as MPS; elsewhere a product.
_LINEAR = torch.ops.aten.linear

#: Called with the number of an expert and its tokens, (T, I), which the module may overwrite later.
OnTokens = Callable[[int, Tensor], None]


@contextmanager
def expert_inputs(module: nn.Module, weights: Mapping[str, OnTokens]) -> Iterator[None]:
    """Observe the products with parameters of a module that hold an expert's matrix after another, when it runs.

    `weights` are by the parameters' names in the module.

    Where a module multiplies all tokens with every expert, those that are zero throughout are not routed to it.
    """
    running = ExitStack()

    def began(_module: nn.Module, _args: object) -> None:
        named: dict[Tensor, OnTokens] = {module.get_parameter(name): on_tokens for name, on_tokens in weights.items()}
        running.enter_context(_Products(named))

    def ended(*_: object) -> None:
        running.close()

    hooks = [module.register_forward_pre_hook(began), module.register_forward_hook(ended, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class
    def __init__(self, weights: Mapping[Tensor, OnTokens]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {weight.untyped_storage().data_ptr(): (weight, found) for weight, found in weights.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, having reported what it multiplies with a weight."""
        del types
        result = func(*args, **(kwargs or {}))
        read = [value for value in tensors_among((*args, *(kwargs or {}).values())) if self._owner(value) is not None]
        if read and not is_view(func):
            self._report(func, args)
        return result

    def _owner(self, value: Tensor) -> tuple[Tensor, OnTokens] | None:
        return self._weights.get(value.untyped_storage().data_ptr())

    def _report(self, func: Any, args: tuple[Any, ...]) -> None:
        operation = func.overloadpacket
        if operation not in PRODUCTS | ADDED_PRODUCTS | {_LINEAR}:
            raise RuntimeError(f"experts' weights are read by {operation}, not by products alone")
        left, right = args[1:3] if operation in ADDED_PRODUCTS else args[:2]
        owners = self._owner(left), self._owner(right)
        weight, on_tokens = owners[0] or owners[1] or (None, None)
        assert weight is not None
        assert on_tokens is not None
        matrix, x_TI = (right, left) if owners[0] is None else (left.mT, right.mT)
        if matrix.dim() == 3:  # of all experts
            routed = [(expert, own_TI[own_TI.any(dim=1)]) for expert, own_TI in enumerate(x_TI)]
        else:
            routed = [((matrix.storage_offset() - weight.storage_offset()) // matrix.numel(), x_TI)]
        for expert, own_TI in routed:
            if len(own_TI):
                on_tokens(expert, own_TI)


def is_view(func: Any) -> bool:
    """Whether an operation reads no values: only its result's use counts."""
    return any(
        returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns
    )
