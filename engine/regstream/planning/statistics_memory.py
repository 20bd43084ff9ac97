"""What statistics and solves of input groups and norms hold: of each, as the method that solves for it says."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from regstream.methods.method import Method
from regstream.planning.opened_merge import OpenedMerge
from regstream.planning.step import Step
from regstream.planning.work import token_counts


def statistics_terms(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> Mapping[str, int]:
    """What methods sum of these groups; those of several methods, whose numbers differ by group, are added up."""
    by_method: dict[Method, list[str]] = {}
    for group in groups:
        by_method.setdefault(step.method_of(group), []).append(group)
    total: Counter[str] = Counter()
    for method, own in by_method.items():
        total.update(method.memory_terms(step.linear_groups(own), token_counts(merge)))
    return dict(total)


def norm_terms(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> Mapping[str, int]:
    """What it takes to observe norms: of heads, as many values a token as the widest linear before them writes."""
    positions = max((math.prod(batch.shape) for batch in merge.all_batches), default=0)
    norms, hidden_size = step.norm_groups(groups), merge.model.hidden_size
    widths = [hidden_size if norm.channels == hidden_size else merge.model.max_features for norm in norms]
    return merge.method.norm_terms(norms, positions * max(widths, default=0), merge.compute_dtype.itemsize)


def solve_bytes(merge: OpenedMerge, step: Step, groups: Sequence[str]) -> int:
    """What the largest solve of these groups takes."""
    linear_groups = step.linear_groups(groups)
    return max((step.method_of(group.name).solve_bytes(group, merge.device) for group in linear_groups), default=0)
