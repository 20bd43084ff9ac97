"""The memory model: what a step holds at its peak, term by term, on the host and on an accelerator.

The terms that do not follow from shapes were measured on the CPU, and are bounds; `tools/bench/run projections` prints
what the operating system counted beside their sums.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch

from regstream.checkpoint.mean import STRETCH
from regstream.device import malloc
from regstream.linalg import gram
from regstream.linalg.cholesky import REFINED_ROWS
from regstream.linalg.normal_equations import PANEL_ROWS
from regstream.linalg.spectral import FILTERED_ROWS
from regstream.linalg.symmetric import PANEL_COLUMNS, blocks_width
from regstream.methods.regmean import RegMean
from regstream.models.batch import Batch
from regstream.plan.job import Job
from regstream.plan.step import Step, TensorPlan

Groups = tuple[str, ...]
MemorySpace = Literal["host", "device"]

#: What libraries load and keep once they are warm: before any large product is formed, while they are, and after.
_LIBRARIES_BYTES = {"stem": 0, "block": 40 << 20, "head": 36 << 20}
#: What the heap keeps of a batch for the next one, at most: its end, and holes, of which pixels leave larger ones.
_KEPT_BYTES = {"stem": malloc.KEPT_BYTES * 3 // 2, "block": malloc.KEPT_BYTES, "head": 0}
#: Panels of tensors, stretches of a mean, checkpoint staging and what a matrix product packs, at any time.
_PANELS_BYTES = 32 << 20
#: Activations as wide as the widest weights of a block, by the number of these; with others, three. Of two weights one
#: writes what the other reads once it is activated in place. A gate is a second tensor, and its product with the first
#: a third; gates that one weight writes with what they are for have half its width, and so has the product.
_WIDE_TENSORS = {1: 2, 2: 1}
#: Copies of some rows of a singular system's solution: it, its correction, what is damped, and means read again.
_FILTERED_COPIES = 10
#: Stretches of a tensor beside the mean's where a method combines it with the base.
_COMBINED_STRETCHES = 2
#: Chunks of a shard on its way from the hub, some times over.
_DOWNLOAD_BYTES = 48 << 20
#: A CUDA context and the workspaces of its libraries; by others' accounts, not measured here.
_CONTEXT_BYTES = 768 << 20
#: Journal, auxiliary files, and what a file system needs for itself.
DISK_MARGIN = 1.02


def memory_terms(job: Job, step: Step, groups: Sequence[str]) -> Mapping[MemorySpace, Mapping[str, int]]:
    """What a step holds while some of its input groups go through."""
    sums, activations = _sums(job, step, groups), _activations(job, step, groups)
    host = {"libraries": _LIBRARIES_BYTES[step.kind], "panels": _PANELS_BYTES, **_adapters(job, step, groups)}
    if any(tensor.use == "combine" for tensor in step.tensors):
        host["base"] = _COMBINED_STRETCHES * STRETCH * torch.float32.itemsize
    if step.kind == "stem" and step.feeds:
        host["image decoding"] = max(candidate.rows.decoding_bytes for candidate in job.candidates)
    if job.fetches:
        host["download"] = _DOWNLOAD_BYTES
    if job.device.type == "cpu":
        kept = min(sum(activations.values()), _KEPT_BYTES[step.kind])
        host |= _workspaces(job, step)
        return {"host": _rounded({**sums, **activations, "kept for the next batch": kept, **host})}
    # Weights and activations reach the device through the host, hidden states one batch ahead and one behind.
    batches = 3 * _widest_batch_bytes(job) if step.feeds or groups else 0
    return {
        "host": _rounded(host | {"hidden states": batches}),
        "device": {**sums, **activations, "context": _CONTEXT_BYTES},
    }


def generation_bytes(job: Job) -> int:
    """The size of the hidden states of all calibration sets at one depth."""
    if not any(step.feeds for step in job.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in job.candidates for batch in candidate.rows.batches)
    return num_tokens * job.model.hidden_size * job.compute_dtype.itemsize


def _rounded(terms: dict[str, int]) -> dict[str, int]:
    """Large tensors lie on huge pages, of which the last is seldom full, and batches leave holes between them."""
    return terms | {"rounding": sum(terms.values()) // 48}


def _workspaces(job: Job, step: Step) -> dict[str, int]:
    """What libraries packed for products and keep, from the first block on: it grows with the largest weight."""
    block = next((step for step in job.steps if step.regressed), None)
    if block is None or step.index < block.index:
        return {}
    return {"workspaces": max(map(math.prod, block.shapes.values())) * job.compute_dtype.itemsize * 2 // 3}


def _adapters(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """What reading takes beside the buffers: one weight's factors, and of a model that several adapters are put on a
    stretch of a tensor, or a block as it is stored where it is not the reference."""
    checkpoints = [candidate.checkpoint for candidate in job.candidates]
    shared = max(checkpoint.kept_bytes(step.shapes) for checkpoint in checkpoints)
    block = shared if job.shared is None else 0
    terms = {
        "adapter": max(checkpoint.scratch_bytes(step.shapes) for checkpoint in checkpoints),
        "shared block": block if groups else min(shared, STRETCH * torch.float32.itemsize),
    }
    return {name: num_bytes for name, num_bytes in terms.items() if num_bytes}


def _sums(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """Weights, and what is summed over the candidates."""
    block = _count(step.tensors) * job.compute_dtype.itemsize
    if not groups:
        return {"weights": block} if step.feeds else {}
    assert isinstance(job.method, RegMean)
    itemsize = gram.accumulation_dtype(job.method.alpha).itemsize
    linears = [tensor for group in groups for tensor in step.regressed[group]]
    widths = [step.regressed[group][0].out_in[1] for group in groups]
    return {
        "candidate's block": block,
        "reference": block if job.shared is not None else _count(linears) * job.compute_dtype.itemsize,
        # Two symmetric matrices share a square: the sum over all candidates and one candidate's own.
        "Gram sums": sum(w * (w + gram.ROW_PADDING + 2 * blocks_width(w)) for w in widths) * itemsize,
        "right-hand sides": _count(linears) * itemsize,
        "means": _count(tensor for tensor in step.folded if tensor.use != "base") * 4,
        "kept tokens": sum(_kept_tokens(job, width) * (width + gram.ROW_PADDING) for width in widths) * itemsize,
        "scratch": max(map(_scratch_values, [job] * len(groups), [step.regressed[g] for g in groups])) * itemsize,
    }


def _activations(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    """What comes and goes: a batch while it passes through, later the refinement of some rows of a solution."""
    if not (step.feeds or groups):
        return {}
    if step.kind == "stem":
        # Embedded pixels pass through two more layouts on their way.
        inputs = max(candidate.rows.input_bytes for candidate in job.candidates)
        batches = (batch for candidate in job.candidates for batch in candidate.rows.batches)
        return {"batch": _widest_batch_bytes(job) * 4 + inputs * 3 + max(_mask_bytes(job, batch) for batch in batches)}
    batch = max(_block_bytes(job, step, batch) for candidate in job.candidates for batch in candidate.rows.batches)
    refined = max((_refinement_bytes(job, step.regressed[group]) for group in groups), default=0)
    return {"batch": batch} if batch >= refined else {"refinement": refined}


def _block_bytes(job: Job, step: Step, batch: Batch) -> int:
    """A batch in a block: one to three tensors as wide as its widest linear, six as wide as the hidden states."""
    rows, length = batch.shape
    widths = [max(shape) for shape in step.shapes.values() if len(shape) == 2]
    in_place = job.model.family.activates_in_place and job.device.type == "cpu"
    num_wide = _WIDE_TENSORS.get(widths.count(max(widths)), 3) if in_place else 3
    values = rows * length * (num_wide * max(widths) + 6 * job.model.hidden_size)
    itemsize = job.compute_dtype.itemsize
    # Scores of every head where attention is not fused, normalised from a copy in float32 into another.
    scores = rows * job.model.eager_heads * length**2 * (8 if itemsize == 4 else itemsize + 8)
    return values * itemsize + scores + _mask_bytes(job, batch, in_block=True)


def _mask_bytes(job: Job, batch: Batch, *, in_block: bool = False) -> int:
    """Masks: which position sees which, of each kind of attention in the model.

    As numbers where attention is not fused; where it is, the kernel makes those of one block so.
    """
    rows, length = batch.shape
    num_masks, itemsize = job.model.num_masks(length, is_padded=batch.is_padded), job.compute_dtype.itemsize
    if not num_masks or job.base.family.rows == "pixel_values":
        return 0
    of_position = num_masks * (1 + itemsize) if job.model.eager_heads else num_masks + 1 + itemsize * in_block
    return rows * length**2 * of_position


def _refinement_bytes(job: Job, linears: Sequence[TensorPlan]) -> int:
    """Rows in float64 three times, and a panel of the matrix in float64.

    Sums in float64 may be singular: rows on their way to a solution, and of what is read again for its mean a whole
    tensor where it is stored transposed.
    """
    width = linears[0].out_in[1]
    assert isinstance(job.method, RegMean)
    if gram.accumulation_dtype(job.method.alpha) == torch.float64:
        read_whole = max((math.prod(tensor.shape) for tensor in linears if tensor.transposed), default=0)
        return (_FILTERED_COPIES * FILTERED_ROWS * width + read_whole) * 8
    return (3 * REFINED_ROWS + PANEL_COLUMNS) * width * 8


def _widest_batch_bytes(job: Job) -> int:
    positions = max(math.prod(batch.shape) for candidate in job.candidates for batch in candidate.rows.batches)
    return positions * job.model.hidden_size * job.compute_dtype.itemsize


def _kept_tokens(job: Job, in_features: int) -> int:
    """The most tokens that any candidate keeps instead of their product."""
    counts = (sum(batch.num_tokens for batch in candidate.rows.batches) for candidate in job.candidates)
    return max((count for count in counts if gram.stores_tokens(count, in_features)), default=0)


def _scratch_values(job: Job, linears: Sequence[TensorPlan]) -> int:
    """Tokens on their way to a product in another dtype; later rows of a candidate's difference."""
    out_features, in_features = max(tensor.out_in[0] for tensor in linears), linears[0].out_in[1]
    differences = min(out_features, PANEL_ROWS) * (in_features + gram.ROW_PADDING)
    assert isinstance(job.method, RegMean)
    if job.compute_dtype == gram.accumulation_dtype(job.method.alpha):
        return differences
    most = max(batch.num_tokens for candidate in job.candidates for batch in candidate.rows.batches)
    num_tokens = min(most, gram.TOKENS_AT_A_TIME)
    tokens = num_tokens * in_features + gram.ROW_PADDING * max(num_tokens, in_features)
    return max(tokens, differences)


def _count(tensors: Iterable[TensorPlan]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)
