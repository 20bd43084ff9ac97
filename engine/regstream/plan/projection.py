"""The memory, the reading and the writing that a step takes, from shapes alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regstream import memory
from regstream.methods import RegMean
from regstream.methods.method import States

if TYPE_CHECKING:
    from regstream.plan.plan import Plan
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


def project(plan: "Plan", step: "Step") -> Projection:
    """What a step takes."""
    return Projection(
        terms=_terms(plan, step), read_bytes=_read_bytes(plan, step), write_bytes=_write_bytes(plan, step)
    )


def generation_bytes(plan: "Plan") -> int:
    """The size of the hidden states of all calibration sets at one depth."""
    if not any(step.feeds for step in plan.steps):
        return 0
    num_tokens = sum(batch.num_tokens for candidate in plan.candidates for batch in candidate.rows.batches)
    return num_tokens * plan.model.hidden_size * plan.compute_dtype.itemsize


def _terms(plan: "Plan", step: "Step") -> dict[str, int]:
    terms: dict[str, int] = {}
    itemsize = plan.compute_dtype.itemsize
    size = sum(math.prod(shape) for shape in step.shapes.values())
    if isinstance(plan.method, RegMean) and step.regressed:
        sums = memory.sum_bytes(plan.method.alpha)
        inputs = {group: tensors[0].shape[1] for group, tensors in step.regressed.items()}
        outputs = {group: sum(tensor.shape[0] for tensor in tensors) for group, tensors in step.regressed.items()}
        terms["blocks"] = size * itemsize * min(2, len(plan.candidates))
        terms["Gram sums"] = sum(width**2 for width in inputs.values()) * sums
        terms["one candidate's Grams"] = terms["Gram sums"]
        terms["right-hand sides"] = sum(inputs[group] * outputs[group] for group in inputs) * sums
    elif step.feeds or step.kind != "block":
        terms["weights"] = size * itemsize if step.feeds else 0
    terms["panels"] = memory.PANEL_BYTES
    if step.feeds or (step.regressed and plan.method.states is not States.NONE):
        terms["batch"] = _batch_bytes(plan, step)
    return terms


def _batch_bytes(plan: "Plan", step: "Step") -> int:
    itemsize = plan.compute_dtype.itemsize
    rows, length = max((batch.shape for c in plan.candidates for batch in c.rows.batches), key=math.prod)
    width = max((shape[0] for shape in step.shapes.values() if len(shape) == 2 and step.kind == "block"), default=0)
    return rows * length * (3 * width + 6 * plan.model.hidden_size) * itemsize


def _read_bytes(plan: "Plan", step: "Step") -> int:
    candidates = sum(
        c.checkpoint.tensors[t.name].num_bytes for c in plan.candidates for t in step.tensors if t.use != "base"
    )
    base = sum(plan.base.tensors[t.name].num_bytes for t in step.tensors if t.use in ("base", "combine"))
    return candidates + base + (generation_bytes(plan) if step.kind == "block" and step.regressed else 0)


def _write_bytes(plan: "Plan", step: "Step") -> int:
    return plan.shard_bytes(step) + (generation_bytes(plan) if step.feeds else 0)
