"""Modules that replace blocks, so that the model's own forward runs a single one of them.

Attention masks, rotary embeddings and scaling may differ between layers: arguments captured at one layer are silently
wrong at another. The model's own loop passes each layer the right ones.
"""

from typing import Any, NoReturn

from torch import Tensor, nn


class StopForward(Exception):
    """Ends a forward pass early; `value` is the tensor it was run for."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _BlockWrapper(nn.Module):
    """Exposes the attributes of the block it replaces: some models ask a layer for its attention type."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule, so that the names of parameters stay

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)


class SkipBlock(_BlockWrapper):
    """The identity; `returns_tuple` for models that take the first element of a block's output."""

    def __init__(self, block: nn.Module, *, returns_tuple: bool = False) -> None:
        super().__init__(block)
        self.__dict__["returns_tuple"] = returns_tuple

    def forward(self, hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor | tuple[Tensor]:
        """Return the hidden states."""
        return (hidden_states,) if self.__dict__["returns_tuple"] else hidden_states


class CaptureInput(_BlockWrapper):
    """Ends the pass with the first block's input."""

    def forward(self, hidden_states: Tensor, *_args: object, **_kwargs: object) -> NoReturn:
        """Raise `StopForward` with the stem's output."""
        raise StopForward(hidden_states)


class RunBlock(_BlockWrapper):
    """Runs its block on the given hidden states with the model's other arguments, and ends the pass."""

    def __init__(self, block: nn.Module, hidden_BLD: Tensor) -> None:
        super().__init__(block)
        self.__dict__["hidden_BLD"] = hidden_BLD

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> NoReturn:
        """Raise `StopForward` with the block's output."""
        del hidden_states
        output = self.__dict__["block"](self.__dict__["hidden_BLD"], *args, **kwargs)
        # Blocks of transformers 5 return a tensor; of older versions and some families, a tuple that starts with it.
        raise StopForward(output if isinstance(output, Tensor) else output[0])


class InjectHidden(SkipBlock):
    """Returns the given hidden states, as the last block's output for the head, and lets the pass continue."""

    def __init__(self, block: nn.Module, hidden_BLD: Tensor, *, returns_tuple: bool = False) -> None:
        super().__init__(block, returns_tuple=returns_tuple)
        self.__dict__["hidden_BLD"] = hidden_BLD

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor | tuple[Tensor]:
        """Return the given hidden states."""
        del hidden_states
        return super().forward(self.__dict__["hidden_BLD"], *args, **kwargs)
