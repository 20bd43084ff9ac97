"""The memory model: what a step holds at its peak, term by term, on the host and on an accelerator.

Terms that do not follow from shapes are bounds measured on the CPU. `tools/bench/run projections` compares the sums
with what the operating system counts: never below it, at most 1.25 times as much.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch

from regstream.checkpoint.mean import CHUNK_VALUES
from regstream.device import malloc
from regstream.device.staging import STAGED_BYTES
from regstream.linalg.row_sketch import SIGN_BYTES, residual_bytes
from regstream.methods.stream import Stream
from regstream.models.layered_model import LayeredModel
from regstream.models.parameter import Parameter
from regstream.planning.disk_terms import token_sketch_bytes
from regstream.planning.library_memory import library_memory
from regstream.planning.network import exchange_bytes
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.statistics_memory import norm_terms, solve_bytes, statistics_terms
from regstream.planning.step import Step
from regstream.planning.work import token_counts

Groups = tuple[str, ...]
MemorySpace = Literal["host", "device"]

#: Allocated by libraries once they multiply large matrices; what small ones need is there since the model was derived.
_LIBRARIES_BYTES = 16 << 20
#: Free memory that the heap keeps after a batch, at most: at its end and in holes.
_HEAP_BYTES = malloc.TRIM_THRESHOLD_BYTES * 3 // 2
#: Panels of tensors, chunks of a mean, read buffers, and what a matrix product packs.
_PANELS_BYTES = 32 << 20
#: Chunks of a shard while it is downloaded, several times over.
_DOWNLOAD_BYTES = 48 << 20
#: A CUDA context and the workspaces of its libraries; from published figures, not measured.
CONTEXT_BYTES = 768 << 20
#: What an accelerator's allocator holds unused; an allowance, not measured.
_ALLOCATOR_BYTES = 40 << 20
#: Two pieces of page-locked memory for each of two readers of weights.
_PAGE_LOCKED_BYTES = 4 * STAGED_BYTES


def memory_terms(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> Mapping[MemorySpace, Mapping[str, int]]:
    """The bytes that a step holds while it regresses some of its input groups, by memory space and term."""
    forward = merge.forward_memory
    host = {**host_terms(merge), **_adapters(merge, step, groups)}
    if step.kind == "stem" and step.writes_hidden_states:
        host["image decoding"] = forward.decoding_bytes
    if merge.device.type == "cpu":
        host |= _library_buffers(merge, step)
    # Weights and activations reach the device through the host, hidden states one batch ahead and one behind.
    staged = 3 * forward.hidden_bytes if step.writes_hidden_states or groups else 0
    sums, temporary = _sums(merge, step, groups), dict(_activations(merge, step, groups))
    # Diagnostics take the place of a batch and, where that does not do, of statistics.
    idle = sum(temporary.values())
    if diagnostics_need_room(merge, step, groups):
        idle += sum(statistics_terms(merge, step, groups).values())
    temporary |= _if_any("diagnostics", max(0, _diagnostics_bytes(merge, step) - idle))
    for is_matrix, combined in _combined(merge, step).items():
        (temporary if is_matrix or merge.device.type == "cpu" else host).update(combined)
    if merge.device.type != "cpu":
        is_converted = merge.exact_dtype != merge.compute_dtype
        sums = sums | device_terms(merge.model, _adapters(merge, step, groups), is_converted=is_converted)
        sums |= _if_any("exchange", exchange_bytes(merge))
    return by_space(merge.device, sums, temporary, host, staged_bytes=staged)


def diagnostics_need_room(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> bool:
    """Whether diagnostics take more than the largest batch or solve, so that statistics are freed for them."""
    return _diagnostics_bytes(merge, step) > sum(_activations(merge, step, groups).values())


def allocated_bytes(device_bytes: int) -> int:
    """What torch may allocate of some memory on an accelerator: the driver takes its own of it."""
    return max(0, device_bytes - CONTEXT_BYTES)


def by_space(
    device: torch.device,
    weights: Mapping[str, int],
    activations: Mapping[str, int],
    host: Mapping[str, int],
    *,
    staged_bytes: int,
) -> Mapping[MemorySpace, Mapping[str, int]]:
    """Sort terms by memory space: on the CPU all are the host's. `staged_bytes` pass through it to an accelerator."""
    if device.type == "cpu":
        unused = min(sum(activations.values()), _HEAP_BYTES)
        return {"host": _rounded({**weights, **activations, "free in the heap": unused, **host})}
    # What passes through the host does so twice: as it is stored, and in page-locked memory.
    on_host = {"hidden states": 2 * staged_bytes, "page-locked": _PAGE_LOCKED_BYTES}
    held = {**weights, **activations}
    # torch gives out large tensors in multiples of 2 MiB, and smaller ones from pieces of 20 MiB.
    unused = _ALLOCATOR_BYTES + sum(held.values()) // 64
    return {
        "host": _rounded({**host, **on_host}),
        "device": {**held, "hidden states": staged_bytes, "allocator": unused, "context": CONTEXT_BYTES},
    }


def device_terms(model: LayeredModel, adapters: Mapping[str, int], *, is_converted: bool) -> dict[str, int]:
    """What an accelerator holds beside weights and activations: buffers, adapters at work, what it converts."""
    staging = {"staging": 2 * STAGED_BYTES} if is_converted else {}  # pieces of files
    return {"buffers": model.buffer_bytes, **adapters, **staging}


def host_terms(merge: OpenedMerge) -> dict[str, int]:
    """What every step holds on the host."""
    download = _if_any("download", _DOWNLOAD_BYTES * merge.fetches)
    exchange = _if_any("exchange", exchange_bytes(merge))
    return {"libraries": _LIBRARIES_BYTES, "panels": _PANELS_BYTES, **download, **exchange}


def _rounded(terms: dict[str, int]) -> dict[str, int]:
    """Add the unused ends of huge pages, and holes between batches."""
    return terms | {"rounding": sum(terms.values()) // 48}


def _library_buffers(merge: OpenedMerge, step: Step) -> dict[str, int]:
    """Memory that libraries keep from the first block on; formulas of matrices multiply in float64."""
    block = next((step for step in merge.steps if step.block is not None), None)
    multiplies = merge.method.needs_calibration() or merge.method.combines_matrices
    if block is None or step.index < block.index or not multiplies:
        return {}
    dtype = merge.compute_dtype if merge.method.needs_calibration() else torch.float64
    return library_memory(block.shapes.values(), merge.all_batches, dtype, routed=merge.model.architecture.has_experts)


def _adapters(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Memory to read adapters: the factors of one weight, and of a model under several adapters a chunk, or its block
    where that is not the reference."""
    checkpoints = [candidate.checkpoint for candidate in merge.candidates]
    shared = max(checkpoint.cached_bytes(step.shapes) for checkpoint in checkpoints)
    block = shared if merge.shared is None else 0
    scratch = max(checkpoint.scratch_bytes(step.shapes) for checkpoint in (merge.base, *checkpoints))
    cached = block if groups else min(shared, CHUNK_VALUES * torch.float32.itemsize)
    return {**_if_any("adapter", scratch), **_if_any("shared block", cached)}


def _sums(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Weights, and what a block keeps until it is solved."""
    block = _count(step.parameters) * merge.compute_dtype.itemsize
    borrowed = _count(step.borrowed) * merge.compute_dtype.itemsize * len(merge.method.prefixes())
    if not groups:
        return {"weights": block, **_if_any("borrowed", borrowed)} if step.writes_hidden_states else {}
    solved, linear_groups, tokens = _count(step.parameters_of(groups)), step.linear_groups(groups), token_counts(merge)
    means = _count(parameter for parameter in step.not_regressed if parameter.rule == "average")
    sums_means = merge.rank_id.size == 1 and not merge.method.solves_groups_in_turn()
    terms = {
        **_candidate(merge, block, solved),
        **_if_any("borrowed", borrowed),
        **({} if merge.method.runs_own_blocks_only() else {"merged block": block}),
        **({"means": means * torch.float32.itemsize} if sums_means else {}),
        **statistics_terms(merge, step, groups),
        **norm_terms(merge, step, groups),
        # And tokens that are added to them, no more than these.
        **_if_any("token sketches", 2 * token_sketch_bytes(merge, step, groups)),
    }
    if (num_others := len(merge.method.streams) - 1) > 0:
        inputs = sum(group.in_features for group in linear_groups) * tokens.largest_batch
        terms["inputs of other streams"] = num_others * inputs * merge.compute_dtype.itemsize
    return terms


def _combined(merge: OpenedMerge, step: Step) -> dict[bool, dict[str, int]]:
    """What the method's own formula, or its prior's, holds of one tensor: of matrices (True) and of parts (False)."""
    count = len(merge.candidates)
    most = {True: 0, False: 0}
    for method, parameter in merge.formulas(step):
        shape = parameter.out_in if parameter.is_linear else parameter.shape
        held = method.combine_bytes(shape, count, is_linear=parameter.is_linear, device=merge.device)
        if method.combines_matrices:
            held += held // 16  # what large allocations that come and go leave between them: up to 4 % in repeated runs
        most[method.combines_matrices] = max(most[method.combines_matrices], held)
    if merge.device.type == "cpu":  # one after the other
        most = {True: max(most.values()), False: 0}
    return {is_matrix: _if_any("combined tensors", held) for is_matrix, held in most.items()}


def _candidate(merge: OpenedMerge, block: int, solved: int) -> dict[str, int]:
    """A candidate's weights and the reference, of a block of so many bytes, so many of its values of these groups."""
    itemsize, prior = merge.compute_dtype.itemsize, merge.method.prior
    own = {"candidate's block": block} if merge.method.runs_candidates() else {"candidate's linears": solved * itemsize}
    shared = {"reference": block} if merge.shared is not None else {}
    if prior is None:
        return {**own, **(shared or {"reference": solved * itemsize})}
    return {**own, **shared, "prior": solved * torch.float32.itemsize}


def _activations(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """The larger of a batch in its forward pass and the scratch memory of a solve, which do not overlap."""
    held = {}
    if step.kind == "stem" and step.writes_hidden_states:
        held["batch"] = merge.forward_memory.stem_bytes
    elif step.writes_hidden_states or groups:
        held["batch"] = merge.forward_memory.block_bytes(step.shapes) + _inputs_read(merge, step)
    if groups:
        held["solve"] = solve_bytes(merge, step, groups)
    largest = max(held, key=lambda name: held[name], default="")
    return _if_any(largest, held.get(largest, 0))


def _diagnostics_bytes(merge: OpenedMerge, step: Step) -> int:
    """Parts of a parameter, and sketches: of a linear's weights, of their mean, of two differences, of tokens."""
    if not merge.has_diagnostics:
        return 0
    linears = [p.out_in for p in step.parameters if p.linear is not None]
    sketches = max((residual_bytes(shape, len(merge.candidates)) for shape in linears), default=SIGN_BYTES)
    # Parts of a parameter are among the host's panels.
    parts = 3 * CHUNK_VALUES * torch.float32.itemsize if merge.device.type != "cpu" else 0
    return parts + sketches


def _inputs_read(merge: OpenedMerge, step: Step) -> int:
    """Inputs of groups that a pass begins from, without padding and with it, and those of one that it stores.

    Which they are is found in the block's first batch; all but the first are counted. Of a candidate's own block the
    first pass stores as many while it begins from none, and a later one reads those of a group, one batch ahead.
    """
    widths = sorted(group.in_features for group in step.linear_groups(step.regressed)[1:])
    positions = max((math.prod(batch.shape) for batch in merge.all_batches), default=0)
    if not (merge.stores_group_inputs and widths):
        return 0
    values = 2 * sum(widths) + widths[-1] * (3 if Stream.OWN in merge.method.streams else 1)
    return values * positions * merge.compute_dtype.itemsize


def _if_any(name: str, num_bytes: int) -> dict[str, int]:
    return {name: num_bytes} if num_bytes else {}


def _count(parameters: Iterable[Parameter]) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters)
