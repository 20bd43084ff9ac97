"""What the steps of one run share: the plan, the store of hidden states, and buffers that are used again and again."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from regstream.checkpoint.header import TensorSpec
from regstream.checkpoint.reader import TensorReader
from regstream.device import malloc
from regstream.device.matmul_precision import MatmulPrecision, default_precision
from regstream.device.memory import keep_within
from regstream.device.profiler import Profiler, product_rates
from regstream.events import Listener, Progressed, Warned
from regstream.linalg.gram import Workspace, accumulation_dtype
from regstream.linalg.normal_equations import NormalEquations
from regstream.methods.regmean import RegMean
from regstream.plan.plan import Plan
from regstream.plan.step import Step
from regstream.storage.hidden_states import HiddenStates
from regstream.storage.shards import Shards

#: Rows, inner features and columns of the product that is measured, at most.
_MOST_MEASURED = 2048


class StepContext:
    """Buffers are made when first asked for and kept: the blocks of a model are nearly always of one shape.

    `begun` has size and digest of each shard as far as it is committed.
    """

    def __init__(self, plan: Plan, listener: Listener, begun: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.plan = plan
        self.model = plan.model
        self.shards = Shards(plan.output, begun or {}, plan.state)
        self.hidden = HiddenStates(plan.workdir / "hidden", plan.compute_dtype, plan.device)
        alpha = plan.method.alpha if isinstance(plan.method, RegMean) else 0.0
        self.workspace = Workspace(plan.device, accumulation_dtype(alpha))
        self._listener = listener
        self._weights: dict[str, dict[str, Tensor]] = {}
        self.held: dict[str, NormalEquations] = {}
        self._shapes: Mapping[str, object] = {}
        self._heap = malloc.TrimOnGrowth()
        self._of_block = False
        keep_within(plan.device, plan.budgets.get("device", 0))
        #: How products are formed: a block's own, of tokens that become sums, and of sums.
        self.forward, self.sums = default_precision(plan.compute_dtype), default_precision(self.workspace.dtype)
        products = (self.forward, MatmulPrecision(self.workspace.dtype, plan.compute_dtype), self.sums)
        self.profiler = Profiler(plan.device, partial(product_rates, plan.device, _shapes(plan, products)))

    def progress(self, doing: str, amount: int = 1) -> None:
        """Say that some of the step's work is done. The listener may end the run here."""
        self._listener(Progressed(doing=doing, amount=amount))

    def warn(self, message: str) -> None:
        """Say something a person should know that does not stop the work."""
        self._listener(Warned(message=message))

    def weights(self, step: Step) -> dict[str, Tensor]:
        """Buffers for a step's parameters, by their names within the block."""
        return self._buffers("own", {self.local(step, name): shape for name, shape in step.shapes.items()})

    def load(self, step: Step, reader: TensorReader) -> dict[str, Tensor]:
        """Fill the buffers for a step's parameters from a checkpoint or a result."""
        weights = self.weights(step)
        with self.profiler.region("reading", num_bytes=sum(weight.nbytes for weight in weights.values())):
            reader.read(self.whole(step, weights))
        return weights

    def reference(self, step: Step, groups: Sequence[str]) -> dict[str, Tensor]:
        """Buffers for what differences are taken from, by names within the block: what some input groups regress.

        Where all candidates share a model, it is that one's whole block, and filled; for each of them to be made of.
        """
        shared = self.plan.shared
        if shared is None:
            tensors = [tensor for group in groups for tensor in step.regressed[group]]
            return self._buffers("reference", {self.local(step, tensor.name): tensor.shape for tensor in tensors})
        block = self._buffers("reference", {self.local(step, name): shape for name, shape in step.shapes.items()})
        with self.profiler.region("reading", num_bytes=sum(weight.nbytes for weight in block.values())):
            shared.read_into_cache(self.whole(step, block))
        return block

    def _buffers(self, slot: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        if {name: tuple(tensor.shape) for name, tensor in self._weights.get(slot, {}).items()} != shapes:
            self._weights.pop(slot, {}).clear()  # before there are new ones, whoever still has the old mapping
            with malloc.mmap_large():
                self._weights[slot] = {
                    name: torch.empty(shape, dtype=self.plan.compute_dtype, device=self.plan.device)
                    for name, shape in shapes.items()
                }
        return self._weights[slot]

    def tidy(self, step: Step) -> None:
        """Give back what a step has no use for: the weights of what is no block, sums where nothing is regressed."""
        if not step.regressed or self._of_block != (step.block is not None):
            self._weights.clear()
        self._of_block = step.block is not None
        if not step.regressed:
            self.held.clear()
            self._shapes = {}
            self.workspace = Workspace(self.workspace.device, self.workspace.dtype)
        self.profiler.begin()
        malloc.trim()

    def rest(self) -> None:
        """After a candidate's turn: what its batches left behind is for the next one's, and does not grow with them."""
        self.profiler.look()
        self._heap.trim()

    def systems(self, step: Step, groups: Sequence[str]) -> dict[str, NormalEquations]:
        """An empty system for each of some input groups; `held` until the next call.

        Where they are others than before, what the last ones regressed is let go of first, the reference too.
        """
        assert isinstance(self.plan.method, RegMean)
        shapes = {group: {str(tensor.linear): tensor.out_in for tensor in step.regressed[group]} for group in groups}
        if shapes != self._shapes:
            self.held.clear()
            if self.plan.shared is None:  # else it is the same whole block for all input groups
                self._weights.pop("reference", {}).clear()
            for group, linears in shapes.items():
                self.held[group] = self.plan.method.system(group, linears, self.workspace)
            self._shapes = shapes
        for system in self.held.values():
            system.reset()
        return self.held

    def local(self, step: Step, name: str) -> str:
        """A parameter's name within its block; outside the blocks its whole name."""
        return name if step.block is None else name.removeprefix(self.model.family.block_prefix(step.block))

    def whole(self, step: Step, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Buffers by the parameters' whole names."""
        prefix = "" if step.block is None else self.model.family.block_prefix(step.block)
        return {prefix + name: tensor for name, tensor in weights.items()}

    def merged(self, step: Step) -> TensorReader:
        """A step's result, read back from its shard."""
        part = self.plan.parts[step.index]
        file = self.shards.path(part)
        extents, own = part.extents, {}
        for name, shape in step.shapes.items():
            begin, end = extents[self.plan.base.stored_name(name)]
            own[name] = TensorSpec(file=file, dtype=part.dtype, shape=shape, begin=begin, end=end)
        return TensorReader(f"merged {step.name}", own)


def _shapes(plan: Plan, products: Iterable[MatmulPrecision]) -> dict[MatmulPrecision, tuple[int, int, int]]:
    """The machine's rate is taken where most of the work is: tokens through the widest linear."""
    shapes = [shape for step in plan.steps if step.regressed for shape in step.shapes.values() if len(shape) == 2]
    if not shapes:
        return {}
    columns, inner = (min(size, _MOST_MEASURED) for size in max(shapes, key=math.prod))
    return dict.fromkeys(products, (_MOST_MEASURED, inner, columns))
