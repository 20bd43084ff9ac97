"""A block's forward pass taken up from inputs of its linears that an earlier pass observed.

Linears of a group in `known` read what is given for them; those of a group in `skipped` read an unknown, and neither
they nor what depends on them is computed.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from regstream.models.batch import Batch
from regstream.models.body_arguments import BodyArguments
from regstream.models.layered_model import LayeredModel
from regstream.models.linear_inputs import observe
from regstream.models.unknown import Unknown

#: The key of what leaves the block, beside the names of groups.
OUTPUT = ""


@contextmanager
def resumed_block(
    model: LayeredModel, index: int, *, known: Mapping[str, Tensor], skipped: Collection[str]
) -> Iterator[None]:
    """Within the context, a block runs with known inputs (B, L, I) and without what is skipped, by group."""
    block = model.blocks[index]
    with ExitStack() as hooks:
        for group in model.architecture.groups[index]:
            for linear in group.linears if group.name in known or group.name in skipped else ():

                def hook(_module: nn.Module, args: tuple[Any, ...], name: str = group.name) -> tuple[Any, ...]:
                    given = known[name] if name in known else Unknown.like(args[0], [name])
                    return (given.view(args[0].shape), *args[1:]) if name in known else (given, *args[1:])

                hooks.enter_context(block.get_submodule(linear).register_forward_pre_hook(hook))
        yield


def group_dependencies(
    model: LayeredModel,
    index: int,
    hidden_BLD: Tensor,
    batch: Batch,
    arguments: BodyArguments | None,
    *,
    names: Collection[str],
) -> dict[str, frozenset[str]] | None:
    """Which of the groups of these names the input of each of them, and the block's `OUTPUT`, depends on by itself.

    A group's input that depends on the block's input alone has none. None where a pass cannot be taken up: the block
    decides by values, or writes into tensors in place. The block's parameters must be bound; those of linears may be
    anything.
    """
    groups = [group for group in model.architecture.groups[index] if group.name in names]
    found = dict[str, frozenset[str]]()

    def keep(group: str, x: Tensor) -> None:
        found[group] = x.origins if isinstance(x, Unknown) else frozenset()

    block = model.blocks[index]
    # Observed before it is replaced: hooks run in the order in which they are registered.
    with observe(block, groups, keep), resumed_block(model, index, known={}, skipped=names):
        try:
            output = model.run_block(index, hidden_BLD, batch, arguments)
        except (TypeError, RuntimeError, NotImplementedError):  # what an operation on unknown values ends in
            return None
    keep(OUTPUT, output)
    return found
