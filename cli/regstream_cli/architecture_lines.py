"""What was found in a model, in lines for people. The engine's summary has the values; only the layout is made here."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from regstream.units import format_names

if TYPE_CHECKING:
    from regstream.planning.architecture_summary import ArchitectureSummary, BlockKind

_MAX_SPANS = 4
_MAX_NAMES = 4
_MAX_GROUPS = 8
_RULES = {"combine": "the method's formula"}


def architecture_lines(summary: "ArchitectureSummary") -> Iterator[str]:
    """The class and its kinds of blocks, what is outside the blocks, what is not regressed, and how blocks run."""
    yield f"{summary.model_class}: {summary.num_blocks} blocks in {summary.blocks}"
    if summary.regresses:
        yield from map(_kind_line, summary.kinds)
    for rule, parts in groupby(sorted(summary.parts, key=lambda part: part.rule), key=lambda part: part.rule):
        named = (f"{part.part.replace('_', ' ')} ({format_names(part.names, _MAX_NAMES)})" for part in parts)
        yield f"outside the blocks, {_RULES.get(rule, rule)}: {', '.join(named)}"
    for left_out in summary.not_regressed:
        yield f"not regressed, {_RULES.get(left_out.rule, left_out.rule)}: {left_out.names}: {left_out.reason}"
    if summary.borrowed:
        yield f"blocks also read, of earlier steps: {format_names(summary.borrowed, _MAX_NAMES)}"
    if summary.has_targets:
        yield "rows are inputs and targets: rows of which both are of one length share a batch"
    elif summary.runs_rows_alone:
        yield "rows run one by one: padding changes what the model makes of a row"


def _kind_line(kind: "BlockKind") -> str:
    linears = [linear for group in kind.groups for linear in group]
    leaves = {linear: linear.rpartition(".")[2] for linear in linears}
    is_short = len(set(leaves.values())) == len(linears)
    groups = [", ".join(leaves[linear] if is_short else linear for linear in group) for group in kind.groups]
    patterns = list(dict.fromkeys(re.sub(r"\b\d+\b", "*", group) for group in groups))
    more = f" | and {len(patterns) - _MAX_GROUPS} more" if len(patterns) > _MAX_GROUPS else ""
    title = f"{len(groups)} input group{'s' * (len(groups) != 1)}"
    listed = " | ".join(patterns[:_MAX_GROUPS])
    return f"{_blocks(kind.blocks)}: {title}{': ' * bool(groups)}{listed}{more}"


def _blocks(blocks: Sequence[int]) -> str:
    """`blocks 0 to 2, 4 to 6, 8`; of many spans the first, and how many blocks there are."""
    starts = [blocks[0], *(after for before, after in pairwise(blocks) if after != before + 1)]
    ends = [*(before for before, after in pairwise(blocks) if after != before + 1), blocks[-1]]
    spans = [str(start) if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=True)]
    if len(spans) > _MAX_SPANS:
        return f"blocks {', '.join(spans[:_MAX_SPANS])}, … ({len(blocks)} blocks)"
    return f"block{'s' * (len(blocks) > 1)} {', '.join(spans)}"
