"""The inputs of a block's linears, one per input group, and of its norms, passed to a callback while the block runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from regstream.models.architecture.architecture import InputGroup, Norm
from regstream.models.block_wrappers import StopForward
from regstream.models.normalised import normalised


@contextmanager
def observe(
    block: nn.Module,
    groups: Sequence[InputGroup],
    on_input: Callable[[str, Tensor], None],
    *,
    norms: Sequence[Norm] = (),
    stop_early: bool = False,
) -> Iterator[None]:
    """Call `on_input(group name, input)` when the first linear of a group runs; its other linears read the same input.

    Of a norm, which must run with its parameters bound, what it makes of its input before weight and bias: (B, L, C),
    or the channels of all heads side by side. With `stop_early`, the block's forward ends with `StopForward` once every
    group and norm has run.
    """
    modules = {group.name: group.linears[0] for group in groups} | {norm.name: norm.name for norm in norms}
    normalise = {norm.name: normalised(block.get_submodule(norm.name), norm.token_axis) for norm in norms}
    unseen = set(modules)
    with ExitStack() as hooks:
        for name, path in modules.items():

            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                on_input(name, normalise[name](*args, **kwargs) if name in normalise else args[0])
                unseen.discard(name)
                if stop_early and not unseen:
                    unseen.update(modules)
                    raise StopForward(args[0])

            hooks.enter_context(block.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))
        yield
