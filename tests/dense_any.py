"""The dense reference for any model with one list of blocks, or an encoder's and a decoder's: RegMean++, float64.

As `reference.py`, whose regression and mean it shares, but with no description of a family: what a linear reads is
watched where it is multiplied. Nguyen et al., TMLR 2026 (arXiv 2508.03121).

What is regressed: the weight of an `nn.Linear` or `Conv1D` of a block that, in the pass of every row, is read once, by
the product in its own module's forward, whose other operand has one vector a position of the block's input; of a module
that has such a weight and vectors alone, as a router, too; and the matrices of experts (`dense_experts`). Every other
parameter of a block is the candidates' mean, and so is every parameter outside the blocks. Of which linears that
is true has to be said beforehand, in `TinyModel.averaged`: the reference refuses to differ from it.

Shape suffixes: T positions, I inputs of a linear.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from dense_experts import regress_experts, watched_experts
from reference import Row, mean_of, regress
from tiny_models.model import TinyModel

ALPHA = 0.95
#: What makes another view of a weight, or asks for its form, and so multiplies nothing.
_VIEWS = (
    *("__get__", "size", "dim", "t", "transpose", "detach", "data_ptr", "untyped_storage", "__len__"),
    *("is_floating_point", "is_complex", "__set__", "_has_compatible_shallow_copy_type"),  # of Module.to
)
#: What reads a weight in another dtype, as routers do.
_CASTS = ("type", "to", "float")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The merged model's tensors by name, as `tensors_of` gives them, and the names of those that were regressed."""

    tensors: dict[str, Tensor]
    regressed: frozenset[str]


@dataclass
class Reads:
    """How one linear's weight was read in the pass of one row: operands of products in its module, and other uses."""

    operands: list[Tensor] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def input_TI(self, positions: int) -> Tensor | None:
        """What the linear read at each position, once; None where it reads otherwise."""
        if len(self.operands) != 1 or self.others:
            return None
        x_TI = self.operands[0].flatten(0, -2).double()
        return x_TI if len(x_TI) == positions else None


class WatchWeights(TorchFunctionMode):
    """Notes every function that reads one of some weights, whichever code calls it."""

    def __init__(self, weights: Mapping[str, Tensor], reads: Mapping[str, Reads]) -> None:
        super().__init__()
        self.names = {_storage(weight): name for name, weight in weights.items()}
        assert len(self.names) == len(weights), "weights share memory"
        self.reads = reads
        self.running: list[str] = []  # the linears whose forward runs
        self.casts: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, having noted which weights it reads."""
        tensors = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
        if func.__name__ not in _VIEWS:
            for position, tensor in enumerate(tensors):
                name = self.names.get(_storage(tensor))
                if name is not None and func.__name__ not in _CASTS:
                    self._note(name, func.__name__, tensors[:position])
        result = func(*args, **(kwargs or {}))
        if func.__name__ in _CASTS and (name := self.names.get(_storage(tensors[0]))) is not None:
            self.names[_storage(result)] = name
            self.casts.append(result)  # so that no other tensor takes its place in memory
        return result

    def _note(self, name: str, function: str, before: Sequence[Tensor]) -> None:
        # linear(x, W, b), addmm(b, x, W) and x @ W.T: what is multiplied stands before the weight.
        if self.running[-1:] == [name] and function in ("linear", "addmm", "matmul", "__matmul__") and before:
            self.reads[name].operands.append(before[-1].clone())
        else:
            self.reads[name].others.append(function)


def merge(
    model: TinyModel, candidates: Sequence[nn.Module], rows: Sequence[Sequence[Row]], *, alpha: float = ALPHA
) -> Merged:
    """Merge candidates with equal weights; `rows[i]` are candidate i's, each the arguments of one forward pass.

    Raises:
        AssertionError: a linear is read otherwise than the model's description says.
    """
    assert model.blocks is not None, f"{model.name} has no list of blocks to merge"
    merged, regressed = deepcopy(candidates[0]), set[str]()
    named = [tensors_of(candidate) for candidate in candidates]
    with torch.no_grad():
        for name, tensor in average(candidates).items():
            tensors_of(merged)[name].copy_(tensor)
        # The encoder is merged before the decoder's first block: what that reads is the merged encoder's output.
        for path in (model.blocks, *([model.decoder] if model.decoder else [])):
            blocks = merged.get_submodule(path)
            assert isinstance(blocks, nn.ModuleList)
            for index, mean in enumerate(blocks):
                grams, experts = [], []
                for candidate, calibration in zip(candidates, rows, strict=True):
                    # Merged outside and before this block; in it, the candidate's own.
                    blocks[index] = candidate.get_submodule(f"{path}.{index}")
                    with watched_experts(blocks[index]) as reads:
                        grams.append(gram_matrices(model, merged, blocks[index], calibration))
                    experts.append(reads)
                blocks[index] = mean
                for name in [name for name in experts[0] if all(reads[name].is_used for reads in experts)]:
                    full_name, found = f"{path}.{index}.{name}", [reads[name] for reads in experts]
                    own = [tensors[full_name] for tensors in named]
                    mean.get_parameter(name).copy_(regress_experts(own, found, alpha, [1.0] * len(own)))
                    regressed.add(full_name)
                _check_averaged(model, index, mean, grams[0].keys())
                for name, linear in linears_of(mean):
                    if name in grams[0]:
                        full_name = f"{path}.{index}.{name}.weight"
                        transposed = isinstance(linear, Conv1D)  # stored as (in, out)
                        own_OI = [tensors[full_name].T if transposed else tensors[full_name] for tensors in named]
                        merged_OI = regress(own_OI, [gram[name] for gram in grams], [1.0] * len(own_OI), alpha)
                        mean.get_parameter(f"{name}.weight").copy_(merged_OI.T if transposed else merged_OI)
                        regressed.add(full_name)
    return Merged(tensors=tensors_of(merged), regressed=frozenset(regressed))


def average(candidates: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The mean of the candidates' tensors."""
    named = [tensors_of(candidate) for candidate in candidates]
    return {name: mean_of([tensors[name] for tensors in named], [1.0] * len(named)) for name in named[0]}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint of a model holds: parameters, a tied one once, and the buffers that it keeps."""
    kept = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {name: parameter.detach() for name, parameter in model.named_parameters()} | buffers


def linears_of(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The linears of a block, routers among them, by name."""
    return [(name, module) for name, module in block.named_modules() if _is_linear(module)]


def _is_linear(module: nn.Module) -> bool:
    dims = {name: parameter.dim() for name, parameter in module.named_parameters()}
    is_bare = dims.get("weight") == 2 and all(d == 1 and "." not in n for n, d in dims.items() if n != "weight")
    return isinstance(module, nn.Linear | Conv1D) or (is_bare and not isinstance(module, nn.Embedding))


def gram_matrices(model: TinyModel, merged: nn.Module, block: nn.Module, rows: Sequence[Row]) -> dict[str, Tensor]:
    """XᵀX / T of each linear of a block that reads, of every row, each token once: of the hidden states that enter the
    block, or in a decoder of the encoder's output."""
    inputs: dict[str, list[Tensor]] = {name: [] for name, _ in linears_of(block)}
    for row in rows:
        with _watched(block) as (reads, positions), _encoder_positions(model, merged) as encoded:
            merged(**row)
        for name in list(inputs):
            found = [x_TI for count in {*positions, *encoded} if (x_TI := reads[name].input_TI(count)) is not None]
            if fnmatchcase(name, model.expert_modules):  # with the tokens that are routed to it, if any
                assert len(reads[name].operands) <= 1
                assert not reads[name].others
                inputs[name] += [x_TI.double() for x_TI in reads[name].operands]
            elif not found:
                del inputs[name]
            elif model.decoder is None and "input_ids" in row:  # Longformer fills rows up to whole windows
                inputs[name].append(found[0][: row["input_ids"].shape[1]])
            else:
                inputs[name].append(found[0])
    widths = {name: linear.get_parameter("weight").shape[1] for name, linear in linears_of(block)}
    none = {name: torch.zeros(1, widths[name], dtype=torch.float64) for name, parts in inputs.items() if not parts}
    joined = none | {name: torch.cat(parts) for name, parts in inputs.items() if parts}
    return {name: x_TI.T @ x_TI / len(x_TI) for name, x_TI in joined.items()}


@contextmanager
def _encoder_positions(model: TinyModel, merged: nn.Module) -> Iterator[list[int]]:
    """The positions of an encoder's output in a pass; none of a model without a decoder."""
    found: list[int] = []

    def count(_module: nn.Module, _arguments: object, output: Any) -> None:
        found.append((output if isinstance(output, Tensor) else output[0]).shape[-2])

    last = f"{model.blocks}.{len(merged.get_submodule(model.blocks or '')) - 1}"  # type: ignore[arg-type]
    handles = [merged.get_submodule(last).register_forward_hook(count)] if model.decoder else []
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(block: nn.Module) -> Iterator[tuple[dict[str, Reads], list[int]]]:
    """Watch one pass: how the linears of a block are read, and the positions of its input, once a run of it."""
    linears = dict(linears_of(block))
    reads, positions = {name: Reads() for name in linears}, list[int]()
    mode = WatchWeights({name: linear.get_parameter("weight") for name, linear in linears.items()}, reads)

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _arguments: mode.running.append(name)

    def leave(_module: nn.Module, _arguments: object, _output: object) -> None:
        mode.running.pop()

    def count(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        positions.append(hidden.shape[-2])

    handles = [block.register_forward_pre_hook(count, with_kwargs=True)]
    for name, linear in linears.items():
        handles += [linear.register_forward_pre_hook(enter(name)), linear.register_forward_hook(leave)]
    try:
        with mode:
            yield reads, positions
    finally:
        for handle in handles:
            handle.remove()


def _check_averaged(model: TinyModel, index: int, block: nn.Module, regressed: Iterable[str]) -> None:
    linears = {f"{index}.{name}" for name, _ in linears_of(block)}
    found = linears - {f"{index}.{name}" for name in regressed}
    told = {name for name in linears if any(fnmatchcase(name, pattern) for pattern in model.averaged)}
    assert found == told, f"{model.name}: not regressed: {sorted(found)}; described: {sorted(told)}"


def _storage(tensor: Tensor) -> int:
    if torch._C._functorch.is_batchedtensor(tensor):  # of a mask that `vmap` makes: no weight
        return 0
    return tensor.untyped_storage().data_ptr()
