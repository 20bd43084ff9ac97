"""The memory, the reading and the writing that a step takes, from shapes alone.

A block's step goes through its input groups in passes. One pass takes all groups where that fits; where it does not,
groups go through in several, the forward pass repeated for each, and the sums of one pass make room for the next.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regstream import memory
from regstream.gram import TOKENS_AT_A_TIME
from regstream.methods import RegMean
from regstream.plan.job import Job
from regstream.plan.step import Step

Groups = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Bytes that one step takes. `terms` add up to the memory beyond what the process holds anyway."""

    passes: tuple[Groups, ...]  # of input groups; empty where nothing is regressed
    terms: Mapping[str, int]
    read_bytes: int
    write_bytes: int

    @property
    def memory_bytes(self) -> int:
        """The sum of the terms."""
        return sum(self.terms.values())


def project(job: Job, step: Step, budget_bytes: int) -> Projection:
    """What a step takes, in as few passes as a budget beyond the runtime allows."""
    passes = _passes(job, step, budget_bytes)
    widest = max((_terms(job, step, groups) for groups in passes or ((),)), key=lambda terms: sum(terms.values()))
    return Projection(
        passes=passes,
        terms=widest,
        read_bytes=_read_bytes(job, step, len(passes)),
        write_bytes=_write_bytes(job, step),
    )


def generation_bytes(job: Job) -> int:
    """The size of the hidden states of all calibration sets at one depth."""
    if not any(step.feeds for step in job.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in job.candidates for batch in candidate.rows.batches)
    return num_tokens * job.model.hidden_size * job.compute_dtype.itemsize


def _passes(job: Job, step: Step, budget_bytes: int) -> tuple[Groups, ...]:
    """Groups packed in their order, which is the shard's; a group that does not fit by itself stands alone."""
    passes: list[Groups] = []
    for group in step.regressed:
        joined = (*passes[-1], group) if passes else (group,)
        if passes and sum(_terms(job, step, joined).values()) <= budget_bytes:
            passes[-1] = joined
        else:
            passes.append((group,))
    return tuple(passes)


def _terms(job: Job, step: Step, groups: Sequence[str]) -> dict[str, int]:
    terms: dict[str, int] = {}
    size = sum(math.prod(shape) for shape in step.shapes.values()) * job.compute_dtype.itemsize
    if isinstance(job.method, RegMean) and groups:
        sums = memory.sum_bytes(job.method.alpha)
        tensors = [tensor for group in groups for tensor in step.regressed[group]]
        widths = [step.regressed[group][0].shape[1] for group in groups]
        terms["blocks"] = size * min(2, len(job.candidates))
        terms["Gram sums"] = sum(width**2 for width in widths) * sums
        terms["one candidate's Grams"] = terms["Gram sums"]
        terms["right-hand sides"] = sum(math.prod(tensor.shape) for tensor in tensors) * sums
        terms["means"] = sum(math.prod(tensor.shape) for tensor in step.folded if tensor.use != "base") * 4
        terms["scratch"] = TOKENS_AT_A_TIME * max(widths) * sums
    elif step.feeds:
        terms["weights"] = size
    terms["panels"] = memory.PANEL_BYTES
    if step.feeds or groups:
        terms["batch"] = _batch_bytes(job, step)
    return terms


def _batch_bytes(job: Job, step: Step) -> int:
    itemsize = job.compute_dtype.itemsize
    rows, length = max((batch.shape for c in job.candidates for batch in c.rows.batches), key=math.prod)
    width = max((shape[0] for shape in step.shapes.values() if len(shape) == 2 and step.kind == "block"), default=0)
    return rows * length * (3 * width + 6 * job.model.hidden_size) * itemsize


def _read_bytes(job: Job, step: Step, num_passes: int) -> int:
    # A block is read whole, once a pass; the first candidate's, the reference, stays. What is only folded is read once.
    times = [1, *[max(1, num_passes)] * (len(job.candidates) - 1)]
    candidates = sum(
        candidate.checkpoint.tensors[tensor.name].num_bytes * count
        for candidate, count in zip(job.candidates, times, strict=True)
        for tensor in step.tensors
        if num_passes or tensor.use != "base"
    )
    base = sum(job.base.tensors[t.name].num_bytes for t in step.tensors if t.use in ("base", "combine"))
    return candidates + base + (generation_bytes(job) if step.kind == "block" and step.regressed else 0)


def _write_bytes(job: Job, step: Step) -> int:
    return job.shard_bytes(step) + (generation_bytes(job) if step.feeds else 0)
