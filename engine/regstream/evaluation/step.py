"""One step of an evaluation: one part of every model of a pass, and what is committed as one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from regstream.evaluation.layerwise_pass import LayerwisePass
from regstream.models.architecture.architecture import place_name
from regstream.planning.step import Kind


@dataclass(frozen=True, kw_only=True)
class EvaluationStep:
    """Stem, a block, or head, of all models of a pass."""

    index: int
    layers: LayerwisePass
    kind: Kind
    block: int | None = None
    stack: int = 0  # whose stem or block it is

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.layers.prefix + ("head" if self.kind == "head" else place_name(self.stack, self.block))

    @property
    def depth(self) -> int:
        """The depth of the hidden states that enter it; -1 for the first stem."""
        architecture = self.layers.model.architecture
        if self.kind == "head":
            return len(self.layers.model.blocks) + len(architecture.stacks) - 1
        return self.stack + (architecture.first_block(self.stack) - 1 if self.block is None else self.block)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its parameters in each model."""
        names = self.layers.parameters(self.kind, self.block, self.stack)
        return {name: self.layers.model.shapes[name] for name in names}

    @property
    def work(self) -> int:
        """How many units of progress it reports."""
        if self.kind == "head":
            return sum(len(model.datasets) for model in self.layers.models)
        return sum(model.num_batches for model in self.layers.models)


def make_steps(passes: Iterable[LayerwisePass]) -> tuple[EvaluationStep, ...]:
    """The steps of passes, one pass after another."""
    parts = ((layers, *part) for layers in passes for part in _parts(layers))
    return tuple(
        EvaluationStep(index=index, layers=layers, kind=kind, block=block, stack=stack)
        for index, (layers, kind, block, stack) in enumerate(parts)
    )


def _parts(layers: LayerwisePass) -> Iterator[tuple[Kind, int | None, int]]:
    architecture = layers.model.architecture
    for stack in range(len(architecture.stacks)):
        yield "stem", None, stack
        for block in range(architecture.first_block(stack), architecture.first_block(stack + 1)):
            yield "block", block, stack
    if layers.metric is not None:
        yield "head", None, 0
