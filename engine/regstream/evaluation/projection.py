"""How a step goes through the models within a memory budget, and the memory that it takes, from shapes alone.

Where rows are decoded from files, the stems of as many models as fit are in memory together, so that rows are decoded
once a group. Nothing else gains from more than one model's weights in memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from regstream.evaluation.layerwise_pass import OpenedModel
from regstream.evaluation.memory_terms import memory_terms
from regstream.evaluation.step import EvaluationStep
from regstream.planning.memory_terms import MemorySpace
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.projection import fits

Terms = Mapping[MemorySpace, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class EvaluationProjection:
    """`terms` add up to a step's memory in addition to the runtime's, by memory space."""

    groups: tuple[tuple[OpenedModel, ...], ...]  # models whose weights are in memory together
    sums_mean: bool  # the mean is summed up while its candidates are read, not read by itself
    terms: Terms

    def memory_bytes(self, space: MemorySpace) -> int:
        """The sum of the terms of a memory space."""
        return sum(self.terms.get(space, {}).values())


def project(merge: OpenedMerge, step: EvaluationStep, budgets: Mapping[MemorySpace, int]) -> EvaluationProjection:
    """Project a step in as few groups as the budgets, less the runtime, allow, with every candidate read once if they
    allow that."""
    alone = memory_terms(merge, step, step.layers.models[:1], sums_mean=True)
    sums_mean = step.layers.mean is not None and fits(alone, budgets)
    groups: list[tuple[OpenedModel, ...]] = []
    for model in step.layers.models:
        joined = (*groups[-1], model) if groups else (model,)
        if groups and _joins(step) and fits(memory_terms(merge, step, joined, sums_mean=sums_mean), budgets):
            groups[-1] = joined
        else:
            groups.append((model,))
    by_group = [memory_terms(merge, step, group, sums_mean=sums_mean) for group in groups]
    peaks = {space: max(_of(space, by_group), key=lambda terms: sum(terms.values())) for space in by_group[0]}
    return EvaluationProjection(groups=tuple(groups), sums_mean=sums_mean, terms=peaks)


def _joins(step: EvaluationStep) -> bool:
    return step.kind == "stem" and not all(rows.is_in_memory for rows in step.layers.datasets.values())


def _of(space: MemorySpace, terms: list[Terms]) -> Iterator[Mapping[str, int]]:
    return (of_group[space] for of_group in terms)
