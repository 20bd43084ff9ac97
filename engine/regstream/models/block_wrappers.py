"""Modules that replace blocks, so that the model's own forward runs a single one of them.

Attention masks, rotary embeddings and scaling may differ between layers: arguments captured at one layer are silently
wrong at another. The model's own loop passes each layer the right ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from regstream.models.architecture.architecture import BlockCall


class StopForward(Exception):
    """Ends a forward pass early; `value` is the tensor it was run for."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _BlockWrapper(nn.Module):
    """Exposes the attributes of the block it replaces: some models ask a layer for its attention type."""

    def __init__(self, block: nn.Module, call: BlockCall) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule, so that the names of parameters stay
        self.__dict__["call"] = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def _hidden(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        key = self.__dict__["call"].hidden_argument
        hidden_BLD: Tensor = args[key] if isinstance(key, int) else kwargs[key]
        return hidden_BLD

    def _as_output(self, hidden_BLD: Tensor) -> Tensor | tuple[Tensor | None, ...]:
        """What the block returns, with these hidden states and nothing else but what the first block passes on."""
        num_outputs = self.__dict__["call"].num_outputs
        if num_outputs is None:
            return hidden_BLD
        passed = self.__dict__.get("passed") or [None] * (num_outputs - 1)
        return (hidden_BLD, *passed)


class SkipBlock(_BlockWrapper):
    """The identity. `passed` has what the first block of its stack returns beside hidden states, once that has run."""

    def __init__(self, block: nn.Module, call: BlockCall, passed: Sequence[Tensor | None] = ()) -> None:
        super().__init__(block, call)
        self.__dict__["passed"] = passed

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor | None, ...]:
        """Return the hidden states."""
        return self._as_output(self._hidden(args, kwargs))


class PassOn(_BlockWrapper):
    """The identity, with the other values that the first block of a stack returns, which all blocks after it take.

    Its linears are not multiplied: what they give is NaN, which shows if what is passed on depends on it.
    """

    def __init__(self, block: nn.Module, call: BlockCall, passed: list[Tensor | None]) -> None:
        """`passed` gets the other values."""
        super().__init__(block, call)
        self.__dict__["passed"] = passed

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor | None, ...]:
        """Return the hidden states, and what the block returns besides."""
        with _unknown_products(self.__dict__["block"]):
            _, *others = self.__dict__["block"](*args, **kwargs)
        self.__dict__["passed"][:] = others
        return (self._hidden(args, kwargs), *others)


class CaptureInput(_BlockWrapper):
    """Ends the pass with what enters the block."""

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `StopForward` with the hidden states."""
        raise StopForward(self._hidden(args, kwargs))


class RunBlock(_BlockWrapper):
    """Runs its block on the given hidden states with the model's other arguments; `is_last` ends the pass with them."""

    def __init__(self, block: nn.Module, call: BlockCall, hidden_BLD: Tensor, *, is_last: bool) -> None:
        super().__init__(block, call)
        self.__dict__["hidden_BLD"] = hidden_BLD
        self.__dict__["is_last"] = is_last

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the block's output, or raise `StopForward` with its hidden states."""
        key, hidden_BLD = self.__dict__["call"].hidden_argument, self.__dict__["hidden_BLD"]
        if isinstance(key, int):
            args = (*args[:key], hidden_BLD, *args[key + 1 :])
        else:
            kwargs = {**kwargs, key: hidden_BLD}
        output = self.__dict__["block"](*args, **kwargs)
        if self.__dict__["is_last"]:
            raise StopForward(output if isinstance(output, Tensor) else output[0])
        return output


class InjectHidden(_BlockWrapper):
    """Returns the given hidden states, as the last block's output for the head, and lets the pass continue."""

    def __init__(self, block: nn.Module, call: BlockCall, hidden_BLD: Tensor) -> None:
        super().__init__(block, call)
        self.__dict__["hidden_BLD"] = hidden_BLD

    def forward(self, *_args: object, **_kwargs: object) -> Tensor | tuple[Tensor | None, ...]:
        """Return the given hidden states."""
        return self._as_output(self.__dict__["hidden_BLD"])


@contextmanager
def _unknown_products(block: nn.Module) -> Iterator[None]:
    """Within the context, what linears of a block give is NaN, without memory."""
    linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
    for linear in linears:
        # An attribute of the module itself comes before its class's method.
        linear.__dict__["forward"] = partial(_unknown_output, linear.out_features)
    try:
        yield
    finally:
        for linear in linears:
            del linear.__dict__["forward"]


def _unknown_output(num_features: int, x: Tensor) -> Tensor:
    return x.new_full((1,), torch.nan).expand(*x.shape[:-1], num_features)
