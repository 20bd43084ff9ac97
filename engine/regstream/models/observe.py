"""What the linears of a block read, group by group, while it runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from regstream.models.block_wrappers import StopForward
from regstream.models.family import InputGroup


@contextmanager
def observe(
    block: nn.Module, groups: Sequence[InputGroup], see: Callable[[str, Tensor], None], *, ends: bool = False
) -> Iterator[None]:
    """Call `see(group name, input)` whenever a group's first linear runs; the others of the group read the same.

    With `ends` the pass is over when all groups were seen, and what is run returns the last one's input.
    """
    handles = []
    unseen = {group.name for group in groups}
    for group in groups:

        def hook(module: nn.Module, args: tuple[Any, ...], name: str = group.name) -> None:
            del module
            see(name, args[0])
            unseen.discard(name)
            if ends and not unseen:
                unseen.update(group.name for group in groups)
                raise StopForward(args[0])

        handles.append(block.get_submodule(group.linears[0]).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
