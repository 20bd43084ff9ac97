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
from regstream.models.batch import Batch
from regstream.plan.opened_merge import OpenedMerge
from regstream.plan.step import PlannedParameter, Step
from regstream.plan.work import token_counts

Groups = tuple[str, ...]
MemorySpace = Literal["host", "device"]

#: Allocated by libraries once they multiply large matrices.
_LIBRARIES_BYTES = 40 << 20
#: Free memory that the heap keeps after a batch, at most: at its end and in holes.
_HEAP_BYTES = malloc.TRIM_THRESHOLD_BYTES * 3 // 2
#: Panels of tensors, chunks of a mean, read buffers, and what a matrix product packs.
_PANELS_BYTES = 32 << 20
#: Activations of a block as wide as its widest linear (a gate, what it multiplies, and their product), and as wide as
#: the hidden states.
_WIDE_TENSORS, _HIDDEN_TENSORS = 3, 6
#: Chunks of a tensor, in addition to the mean's, where a method combines it with the base.
_COMBINED_CHUNKS = 2
#: Chunks of a shard while it is downloaded, several times over.
_DOWNLOAD_BYTES = 48 << 20
#: A CUDA context and the workspaces of its libraries; from published figures, not measured.
CONTEXT_BYTES = 768 << 20
#: Journal, auxiliary files, and the file system's own needs.
DISK_MARGIN = 1.02


def memory_terms(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> Mapping[MemorySpace, Mapping[str, int]]:
    """The bytes that a step holds while it regresses some of its input groups, by memory space and term."""
    sums, activations = _sums(merge, step, groups), _activations(merge, step, groups)
    host = {"libraries": _LIBRARIES_BYTES, "panels": _PANELS_BYTES, **_adapters(merge, step, groups)}
    if any(parameter.rule == "combine" for parameter in step.parameters):
        host["base"] = _COMBINED_CHUNKS * CHUNK_VALUES * torch.float32.itemsize
    if step.kind == "stem" and step.writes_hidden_states:
        host["image decoding"] = max(candidate.rows.decoding_bytes for candidate in merge.candidates)
    if merge.fetches:
        host["download"] = _DOWNLOAD_BYTES
    if merge.device.type == "cpu":
        unused = min(sum(activations.values()), _HEAP_BYTES)
        host |= _library_buffers(merge, step)
        return {"host": _rounded({**sums, **activations, "free in the heap": unused, **host})}
    # Weights and activations reach the device through the host, hidden states one batch ahead and one behind.
    batches = 3 * _widest_batch_bytes(merge) if step.writes_hidden_states or groups else 0
    return {
        "host": _rounded(host | {"hidden states": batches}),
        "device": {**sums, **activations, "context": CONTEXT_BYTES},
    }


def hidden_state_bytes(merge: OpenedMerge) -> int:
    """The size of the hidden states of all calibration sets at one depth, in bytes."""
    if not any(step.writes_hidden_states for step in merge.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in merge.candidates for batch in candidate.rows.batches)
    return num_tokens * merge.model.hidden_size * merge.compute_dtype.itemsize * len(merge.method.prefixes())


def _rounded(terms: dict[str, int]) -> dict[str, int]:
    """Add the unused ends of huge pages, and holes between batches."""
    return terms | {"rounding": sum(terms.values()) // 48}


def _library_buffers(merge: OpenedMerge, step: Step) -> dict[str, int]:
    """Memory that libraries keep from the first block on; it grows with the largest weight."""
    block = next((step for step in merge.steps if step.regressed), None)
    if block is None or step.index < block.index:
        return {}
    return {"library buffers": max(map(math.prod, block.shapes.values())) * merge.compute_dtype.itemsize * 2 // 3}


def _adapters(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Memory to read adapters: the factors of one weight, and of a model under several adapters a chunk, or its block
    where that is not the reference."""
    checkpoints = [candidate.checkpoint for candidate in merge.candidates]
    shared = max(checkpoint.cached_bytes(step.shapes) for checkpoint in checkpoints)
    block = shared if merge.shared is None else 0
    terms = {
        "adapter": max(checkpoint.scratch_bytes(step.shapes) for checkpoint in checkpoints),
        "shared block": block if groups else min(shared, CHUNK_VALUES * torch.float32.itemsize),
    }
    return {name: num_bytes for name, num_bytes in terms.items() if num_bytes}


def _sums(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Weights, and what a block keeps until it is solved."""
    block = _count(step.parameters) * merge.compute_dtype.itemsize
    if not groups:
        return {"weights": block} if step.writes_hidden_states else {}
    linears = [parameter for group in groups for parameter in step.regressed[group]]
    all_linears = [parameter for group in step.regressed.values() for parameter in group]
    tokens = token_counts(merge)
    terms = {
        "candidate's block": block,
        "reference": block if merge.shared is not None else _count(linears) * merge.compute_dtype.itemsize,
        "means": _count(parameter for parameter in step.not_regressed if parameter.rule != "base") * 4,
        **merge.method.memory_terms([step.linear_group(group) for group in groups], tokens),
    }
    if merge.method.solves_groups_in_turn():
        terms["solved linears"] = _count(all_linears) * merge.compute_dtype.itemsize
    if (num_others := len(merge.method.streams) - 1) > 0:
        inputs = sum(step.linear_group(group).in_features for group in groups) * tokens.largest_batch
        terms["inputs of other streams"] = num_others * inputs * merge.compute_dtype.itemsize
    return terms


def _activations(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """The larger of a batch in its forward pass and the scratch memory of a solve, which do not overlap."""
    if not (step.writes_hidden_states or groups):
        return {}
    if step.kind == "stem":
        # Embedding pixels takes two more layouts of them.
        inputs = max(candidate.rows.input_bytes for candidate in merge.candidates)
        batches = (batch for candidate in merge.candidates for batch in candidate.rows.batches)
        return {
            "batch": _widest_batch_bytes(merge) * 4 + inputs * 3 + max(_mask_bytes(merge, batch) for batch in batches)
        }
    batch = max(
        _batch_in_block_bytes(merge, step, batch) for candidate in merge.candidates for batch in candidate.rows.batches
    )
    solve = max((merge.method.solve_bytes(step.linear_group(group)) for group in groups), default=0)
    return {"batch": batch} if batch >= solve else {"solve": solve}


def _batch_in_block_bytes(merge: OpenedMerge, step: Step, batch: Batch) -> int:
    """A batch in a block: its activations, attention scores where they are formed whole, and masks."""
    rows, length = batch.shape
    widths = [max(shape) for shape in step.shapes.values() if len(shape) == 2]
    # Of two linears that wide, one writes what the other reads, activated in place.
    in_place = merge.model.family.activates_in_place and merge.device.type == "cpu" and widths.count(max(widths)) == 2
    num_wide = 1 if in_place else _WIDE_TENSORS
    values = rows * length * (num_wide * max(widths) + _HIDDEN_TENSORS * merge.model.hidden_size)
    itemsize = merge.compute_dtype.itemsize
    # Scores of every head where attention is not fused, normalised from a copy in float32 into another.
    scores = rows * merge.model.num_unfused_heads * length**2 * (8 if itemsize == 4 else itemsize + 8)
    return values * itemsize + scores + _mask_bytes(merge, batch, in_block=True)


def _mask_bytes(merge: OpenedMerge, batch: Batch, *, in_block: bool = False) -> int:
    """Attention masks, one for each kind of attention: numbers where attention is eager, else booleans, of which the
    fused kernel converts one."""
    rows, length = batch.shape
    num_masks, itemsize = merge.model.num_masks(length, is_padded=batch.is_padded), merge.compute_dtype.itemsize
    if not num_masks or merge.base.family.modality == "pixel_values":
        return 0
    of_position = num_masks * (1 + itemsize) if merge.model.num_unfused_heads else num_masks + 1 + itemsize * in_block
    return rows * length**2 * of_position


def _widest_batch_bytes(merge: OpenedMerge) -> int:
    positions = max(math.prod(batch.shape) for candidate in merge.candidates for batch in candidate.rows.batches)
    return positions * merge.model.hidden_size * merge.compute_dtype.itemsize


def _count(parameters: Iterable[PlannedParameter]) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters)
