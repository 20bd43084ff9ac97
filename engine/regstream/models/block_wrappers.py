"""Stand-ins for blocks, so that a model's own forward drives just one of them.

Masks, rotary tables and scaling differ between the layers of one model; captured at one layer they are silently
wrong at another. Left to the model's own loop they are right at every layer.
"""

from typing import Any, NoReturn

from torch import Tensor, nn


class StopForward(Exception):
    """Carries what a forward pass was run for, past the rest of the model."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _StandIn(nn.Module):
    """Has the attributes of the block whose place it takes: some models ask a layer for its kind of attention."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule: the block keeps its own name in the model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)


class SkipBlock(_StandIn):
    """Lets hidden states through untouched; `in_tuple` as blocks do whose model takes the first of what they return."""

    def __init__(self, block: nn.Module, *, in_tuple: bool = False) -> None:
        super().__init__(block)
        self.__dict__["in_tuple"] = in_tuple

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor | tuple[Tensor]:
        """Return the hidden states."""
        del args, kwargs
        return (hidden_states,) if self.__dict__["in_tuple"] else hidden_states


class CaptureInput(_StandIn):
    """Ends the pass with what reaches the first block."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> NoReturn:
        """Raise `StopForward` with the stem's output."""
        del args, kwargs
        raise StopForward(hidden_states)


class RunBlock(_StandIn):
    """Runs its block on hidden states of its own with the arguments the model gives, and ends the pass."""

    def __init__(self, block: nn.Module, hidden_BLD: Tensor) -> None:
        super().__init__(block)
        self.__dict__["hidden_BLD"] = hidden_BLD

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> NoReturn:
        """Raise `StopForward` with the block's output."""
        del hidden_states
        output = self.__dict__["block"](self.__dict__["hidden_BLD"], *args, **kwargs)
        # transformers 5 returns a tensor, older versions and some families a tuple that begins with it.
        raise StopForward(output if isinstance(output, Tensor) else output[0])


class InjectHidden(SkipBlock):
    """Replaces the hidden states by its own and lets the pass go on: the last block's output, for the head."""

    def __init__(self, block: nn.Module, hidden_BLD: Tensor, *, in_tuple: bool = False) -> None:
        super().__init__(block, in_tuple=in_tuple)
        self.__dict__["hidden_BLD"] = hidden_BLD

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor | tuple[Tensor]:
        """Return the hidden states put in."""
        del hidden_states
        return super().forward(self.__dict__["hidden_BLD"], *args, **kwargs)
