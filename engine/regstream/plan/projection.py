"""The memory, the reading and the writing that a step takes, from shapes alone.

A block's step goes through its input groups in passes. One pass takes all groups where that fits; where it does not,
groups go through in several, the forward pass repeated for each, and the sums of one pass make room for the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from regstream.plan.job import Job
from regstream.plan.memory_terms import Groups, MemorySpace, generation_bytes, memory_terms
from regstream.plan.step import Step


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Bytes that one step takes. `terms` add up to the memory beyond what the process holds anyway, place by place.

    On the CPU there is but one place, the host.
    """

    passes: tuple[Groups, ...]  # of input groups; empty where nothing is regressed
    terms: Mapping[MemorySpace, Mapping[str, int]]
    read_bytes: int
    write_bytes: int

    def memory_bytes(self, place: MemorySpace) -> int:
        """The sum of a place's terms."""
        return sum(self.terms[place].values()) if place in self.terms else 0


def project(job: Job, step: Step, budgets: Mapping[MemorySpace, int]) -> Projection:
    """What a step takes, in as few passes as the budgets (beyond the runtime) allow."""
    passes = _passes(job, step, budgets)
    made = [memory_terms(job, step, groups) for groups in passes or ((),)]
    widest = {place: max((terms[place] for terms in made), key=lambda terms: sum(terms.values())) for place in made[0]}
    return Projection(
        passes=passes,
        terms=widest,
        read_bytes=_read_bytes(job, step, len(passes)),
        write_bytes=_write_bytes(job, step),
    )


def _passes(job: Job, step: Step, budgets: Mapping[MemorySpace, int]) -> tuple[Groups, ...]:
    """Groups packed in their order, which is the shard's; a group that does not fit by itself stands alone."""
    passes: list[Groups] = []
    for group in step.regressed:
        joined = (*passes[-1], group) if passes else (group,)
        if passes and _fits(memory_terms(job, step, joined), budgets):
            passes[-1] = joined
        else:
            passes.append((group,))
    return tuple(passes)


def _fits(terms: Mapping[MemorySpace, Mapping[str, int]], budgets: Mapping[MemorySpace, int]) -> bool:
    return all(sum(terms[place].values()) <= budgets[place] for place in terms)


def _read_bytes(job: Job, step: Step, num_passes: int) -> int:
    # A block is read whole, once a pass; what is only folded is read once.
    read = sum(spec.num_bytes for specs in job.reads(step, max(1, num_passes)) for spec in specs)
    return read + (generation_bytes(job) if step.kind == "block" and step.regressed else 0)


def _write_bytes(job: Job, step: Step) -> int:
    return job.written_bytes(step) + (generation_bytes(job) if step.feeds else 0)
