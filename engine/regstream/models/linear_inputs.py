"""The inputs of a block's linears, one per input group, and of its norms, passed to a callback while the block runs."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from regstream.models.architecture.architecture import InputGroup, Norm
from regstream.models.block_wrappers import StopForward
from regstream.models.expert_inputs import OnTokens, expert_inputs
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
    or the channels of all heads side by side. Of an expert's group, the tokens that are routed to it, (T, I), if any:
    padding must not be among them. With `stop_early`, the block's forward ends with `StopForward` once every group and
    norm has run; with groups of experts, of which some may not run, it does not.
    """
    routed = [group for group in groups if group.is_routed]
    modules = {group.name: group.linears[0] for group in groups if not group.fused_weight}
    modules |= {norm.name: norm.name for norm in norms}
    stop_early = stop_early and not routed
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
        for module, weights in _by_module(routed, on_input).items():
            hooks.enter_context(expert_inputs(block.get_submodule(module), weights))
        yield


def _by_module(
    groups: Sequence[InputGroup], on_input: Callable[[str, Tensor], None]
) -> Mapping[str, Mapping[str, OnTokens]]:
    """What is called with an expert's tokens, by the module that multiplies a parameter and the parameter's name in
    it."""
    names: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for group in groups:
        if group.fused_weight:
            names[group.multiplied_in, group.fused_weight][group.expert] = group.name
    found: dict[str, dict[str, OnTokens]] = defaultdict(dict)
    for (module, fused), by_expert in names.items():

        def on_tokens(expert: int, x_TI: Tensor, by_expert: Mapping[int, str] = by_expert) -> None:
            if expert in by_expert:
                on_input(by_expert[expert], x_TI)

        found[module][fused.removeprefix(f"{module}.")] = on_tokens
    return found
