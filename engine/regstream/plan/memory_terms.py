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
from regstream.methods.method import TokenCounts
from regstream.models.batch import Batch
from regstream.plan.job import Job
from regstream.plan.step import PlannedParameter, Step

Groups = tuple[str, ...]
MemorySpace = Literal["host", "device"]

#: Allocated by libraries once they multiply large matrices.
_LIBRARIES_BYTES = 40 << 20
#: Free memory that the heap keeps after a batch, at most: at its end and in holes.
_HEAP_BYTES = malloc.KEPT_BYTES * 3 // 2
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
_CONTEXT_BYTES = 768 << 20
#: Journal, auxiliary files, and the file system's own needs.
DISK_MARGIN = 1.02


def memory_terms(job: Job, step: Step, groups: Sequence[str]) -> Mapping[MemorySpace, Mapping[str, int]]:
    """The bytes that a step holds while it regresses some of its input groups, by memory space and term."""
    sums, activations = _sums(job, step, groups), _activations(job, step, groups)
    host = {"libraries": _LIBRARIES_BYTES, "panels": _PANELS_BYTES, **_adapters(job, step, groups)}
    if any(parameter.rule == "combine" for parameter in step.parameters):
        host["base"] = _COMBINED_CHUNKS * CHUNK_VALUES * torch.float32.itemsize
    if step.kind == "stem" and step.needs_forward:
        host["image decoding"] = max(candidate.rows.decoding_bytes for candidate in job.candidates)
    if job.fetches:
        host["download"] = _DOWNLOAD_BYTES
    if job.device.type == "cpu":
        unused = min(sum(activations.values()), _HEAP_BYTES)
        host |= _workspaces(job, step)
        return {"host": _rounded({**sums, **activations, "free in the heap": unused, **host})}
    # Weights and activations reach the device through the host, hidden states one batch ahead and one behind.
    batches = 3 * _widest_batch_bytes(job) if step.needs_forward or groups else 0
    return {
        "host": _rounded(host | {"hidden states": batches}),
        "device": {**sums, **activations, "context": _CONTEXT_BYTES},
    }


def hidden_state_bytes(job: Job) -> int:
    """The size of the hidden states of all calibration sets at one depth, in bytes."""
    if not any(step.needs_forward for step in job.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in job.candidates for batch in candidate.rows.batches)
    return num_tokens * job.model.hidden_size * job.compute_dtype.itemsize * len(job.method.prefixes())


def _rounded(terms: dict[str, int]) -> dict[str, int]:
    """Add the unused ends of huge pages, and holes between batches."""
    return terms | {"rounding": sum(terms.values()) // 48}


def _workspaces(job: Job, step: Step) -> dict[str, int]:
    """Memory that libraries keep from the first block on; it grows with the largest weight."""
    block = next((step for step in job.steps if step.regressed), None)
    if block is None or step.index < block.index:
        return {}
    return {"workspaces": max(map(math.prod, block.shapes.values())) * job.compute_dtype.itemsize * 2 // 3}


def _adapters(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Memory to read adapters: the factors of one weight, and of a model under several adapters a chunk, or its block
    where that is not the reference."""
    checkpoints = [candidate.checkpoint for candidate in job.candidates]
    shared = max(checkpoint.cached_bytes(step.shapes) for checkpoint in checkpoints)
    block = shared if job.shared is None else 0
    terms = {
        "adapter": max(checkpoint.scratch_bytes(step.shapes) for checkpoint in checkpoints),
        "shared block": block if groups else min(shared, CHUNK_VALUES * torch.float32.itemsize),
    }
    return {name: num_bytes for name, num_bytes in terms.items() if num_bytes}


def _sums(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Weights, and what a block keeps until it is solved."""
    block = _count(step.parameters) * job.compute_dtype.itemsize
    if not groups:
        return {"weights": block} if step.needs_forward else {}
    linears = [parameter for group in groups for parameter in step.regressed[group]]
    all_linears = [parameter for group in step.regressed.values() for parameter in group]
    batches = [[batch.num_tokens for batch in candidate.rows.batches] for candidate in job.candidates]
    tokens = TokenCounts(
        candidates=list(map(sum, batches)), largest_batch=max(map(max, batches)), dtype=job.compute_dtype
    )
    terms = {
        "candidate's block": block,
        "reference": block if job.shared is not None else _count(linears) * job.compute_dtype.itemsize,
        "means": _count(parameter for parameter in step.combined if parameter.rule != "base") * 4,
        **job.method.memory_terms([step.linear_group(group) for group in groups], tokens),
    }
    if job.method.solves_groups_in_turn():
        terms["merged linears"] = _count(all_linears) * job.compute_dtype.itemsize
    if (num_others := len(job.method.streams) - 1) > 0:
        inputs = sum(step.linear_group(group).in_features for group in groups) * tokens.largest_batch
        terms["inputs of other streams"] = num_others * inputs * job.compute_dtype.itemsize
    return terms


def _activations(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """The larger of a batch in its forward pass and the scratch memory of a solve, which do not overlap."""
    if not (step.needs_forward or groups):
        return {}
    if step.kind == "stem":
        # Embedding pixels takes two more layouts of them.
        inputs = max(candidate.rows.input_bytes for candidate in job.candidates)
        batches = (batch for candidate in job.candidates for batch in candidate.rows.batches)
        return {"batch": _widest_batch_bytes(job) * 4 + inputs * 3 + max(_mask_bytes(job, batch) for batch in batches)}
    batch = max(_block_bytes(job, step, batch) for candidate in job.candidates for batch in candidate.rows.batches)
    solve = max((job.method.solve_bytes(step.linear_group(group)) for group in groups), default=0)
    return {"batch": batch} if batch >= solve else {"solve": solve}


def _block_bytes(job: Job, step: Step, batch: Batch) -> int:
    """A batch in a block: its activations, attention scores where they are formed whole, and masks."""
    rows, length = batch.shape
    widths = [max(shape) for shape in step.shapes.values() if len(shape) == 2]
    # Of two linears that wide, one writes what the other reads, activated in place.
    in_place = job.model.family.activates_in_place and job.device.type == "cpu" and widths.count(max(widths)) == 2
    num_wide = 1 if in_place else _WIDE_TENSORS
    values = rows * length * (num_wide * max(widths) + _HIDDEN_TENSORS * job.model.hidden_size)
    itemsize = job.compute_dtype.itemsize
    # Scores of every head where attention is not fused, normalised from a copy in float32 into another.
    scores = rows * job.model.eager_heads * length**2 * (8 if itemsize == 4 else itemsize + 8)
    return values * itemsize + scores + _mask_bytes(job, batch, in_block=True)


def _mask_bytes(job: Job, batch: Batch, *, in_block: bool = False) -> int:
    """Attention masks, one for each kind of attention: numbers where attention is eager, else booleans, of which the
    fused kernel converts one."""
    rows, length = batch.shape
    num_masks, itemsize = job.model.num_masks(length, is_padded=batch.is_padded), job.compute_dtype.itemsize
    if not num_masks or job.base.family.modality == "pixel_values":
        return 0
    of_position = num_masks * (1 + itemsize) if job.model.eager_heads else num_masks + 1 + itemsize * in_block
    return rows * length**2 * of_position


def _widest_batch_bytes(job: Job) -> int:
    positions = max(math.prod(batch.shape) for candidate in job.candidates for batch in candidate.rows.batches)
    return positions * job.model.hidden_size * job.compute_dtype.itemsize


def _count(parameters: Iterable[PlannedParameter]) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters)
