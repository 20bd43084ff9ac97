"""The inputs of a block's linears, one per input group, passed to a callback while the block runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from regstream.models.architecture.architecture import InputGroup
from regstream.models.block_wrappers import StopForward


@contextmanager
def observe(
    block: nn.Module, groups: Sequence[InputGroup], on_input: Callable[[str, Tensor], None], *, stop_early: bool = False
) -> Iterator[None]:
    """Call `on_input(group name, input)` when the first linear of a group runs; its other linears read the same input.

    With `stop_early`, the block's forward ends with `StopForward` once every group has run.
    """
    unseen = {group.name for group in groups}
    with ExitStack() as hooks:
        for group in groups:

            def hook(_module: nn.Module, args: tuple[Any, ...], name: str = group.name) -> None:
                on_input(name, args[0])
                unseen.discard(name)
                if stop_early and not unseen:
                    unseen.update(group.name for group in groups)
                    raise StopForward(args[0])

            hooks.enter_context(block.get_submodule(group.linears[0]).register_forward_pre_hook(hook))
        yield
