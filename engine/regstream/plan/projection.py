"""The memory, the reading and the writing that a step takes, from shapes alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from regstream import memory
from regstream.methods import RegMean
from regstream.methods.method import States
from regstream.plan.job import Job
from regstream.plan.step import Step


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Bytes that one step takes. `terms` add up to the memory beyond what the process holds anyway."""

    terms: Mapping[str, int]
    read_bytes: int
    write_bytes: int

    @property
    def memory_bytes(self) -> int:
        """The sum of the terms."""
        return sum(self.terms.values())


def project(job: Job, step: Step) -> Projection:
    """What a step takes."""
    return Projection(terms=_terms(job, step), read_bytes=_read_bytes(job, step), write_bytes=_write_bytes(job, step))


def generation_bytes(job: Job) -> int:
    """The size of the hidden states of all calibration sets at one depth."""
    if not any(step.feeds for step in job.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in job.candidates for batch in candidate.rows.batches)
    return num_tokens * job.model.hidden_size * job.compute_dtype.itemsize


def _terms(job: Job, step: Step) -> dict[str, int]:
    terms: dict[str, int] = {}
    itemsize = job.compute_dtype.itemsize
    size = sum(math.prod(shape) for shape in step.shapes.values())
    if isinstance(job.method, RegMean) and step.regressed:
        sums = memory.sum_bytes(job.method.alpha)
        inputs = {group: tensors[0].shape[1] for group, tensors in step.regressed.items()}
        outputs = {group: sum(tensor.shape[0] for tensor in tensors) for group, tensors in step.regressed.items()}
        terms["blocks"] = size * itemsize * min(2, len(job.candidates))
        terms["Gram sums"] = sum(width**2 for width in inputs.values()) * sums
        terms["one candidate's Grams"] = terms["Gram sums"]
        terms["right-hand sides"] = sum(inputs[group] * outputs[group] for group in inputs) * sums
    elif step.feeds or step.kind != "block":
        terms["weights"] = size * itemsize if step.feeds else 0
    terms["panels"] = memory.PANEL_BYTES
    if step.feeds or (step.regressed and job.method.states is not States.NONE):
        terms["batch"] = _batch_bytes(job, step)
    return terms


def _batch_bytes(job: Job, step: Step) -> int:
    itemsize = job.compute_dtype.itemsize
    rows, length = max((batch.shape for c in job.candidates for batch in c.rows.batches), key=math.prod)
    width = max((shape[0] for shape in step.shapes.values() if len(shape) == 2 and step.kind == "block"), default=0)
    return rows * length * (3 * width + 6 * job.model.hidden_size) * itemsize


def _read_bytes(job: Job, step: Step) -> int:
    candidates = sum(
        c.checkpoint.tensors[t.name].num_bytes for c in job.candidates for t in step.tensors if t.use != "base"
    )
    base = sum(job.base.tensors[t.name].num_bytes for t in step.tensors if t.use in ("base", "combine"))
    return candidates + base + (generation_bytes(job) if step.kind == "block" and step.regressed else 0)


def _write_bytes(job: Job, step: Step) -> int:
    return job.shard_bytes(step) + (generation_bytes(job) if step.feeds else 0)
