"""The page's tables of how well a merge fits its candidates: scores, residuals, changes, hidden states."""

import math
from collections.abc import Callable, Iterator, Sequence

from regstream.output.merge_summary import ChangeTotal, MergeSummary, total_change
from regstream.output.record_schema import BiasRecord, ChangeRecord, StepRecord
from regstream.reporting.change_picture import relative_change
from regstream.reporting.score_picture import direction
from regstream.reporting.scores import DatasetScores, Scores
from regstream.reporting.table import NOTHING, Table, difference, number, score, share
from regstream.validation.summaries import summarize_names

_MODELS = ("base", "candidate", "mean", "merged")


def score_table(scores: Scores) -> Table:
    """A row for each data set, with the differences of the merged model to the mean and to the candidate itself."""
    rows = [*scores.datasets] if len(scores.datasets) == 1 else [*scores.datasets, scores.average]
    columns = ("rows of", "base", "candidate itself", "mean", "merged", *scores.others)
    return Table(
        caption=f"{scores.metric.capitalize()} of each model on the rows of each candidate; {direction(scores)}",
        columns=(*columns, "merged − mean", "merged − candidate", "gain kept"),
        rows=tuple(_score_row(row) for row in rows),
        total=len(rows) > 1,
    )


def residual_totals(summary: MergeSummary) -> Table:
    """A row for each candidate."""
    return Table(
        caption="Relative residuals, root mean square over all input groups",
        columns=("candidate", "merged", "mean"),
        rows=tuple((total.candidate, share(total.merged), share(total.mean)) for total in summary.residuals),
    )


def residual_table(steps: Sequence[StepRecord], summary: MergeSummary) -> Table:
    """A row for each input group of each block."""
    names = [total.candidate for total in summary.residuals]

    def row(step: StepRecord) -> Iterator[tuple[str, ...]]:
        for record in step.residuals:
            found = [record.candidates.get(name) for name in names]
            cells = [(NOTHING, NOTHING) if one is None else (share(one.merged), share(one.mean)) for one in found]
            yield (f"{step.name}, {short_group(record.group)}", *(text for pair in cells for text in pair))

    return Table(
        caption="Relative residual of each candidate, by block and input group",
        columns=("input group", *("merged", "mean") * len(names)),
        spans=(("", 1), *((name, 2) for name in names)),
        rows=tuple(cells for step in steps for cells in row(step)),
    )


def change_totals(summary: MergeSummary) -> Table:
    """A row for each candidate."""
    return Table(
        caption="What each candidate changed, and what the merged model kept of it",
        columns=("candidate", "‖Δ‖", "‖Δ‖ / ‖base‖", "kept"),
        rows=tuple(
            (total.candidate, number(total.norm), share(relative_change(total)), share(total.kept))
            for total in summary.changes
        ),
    )


def parameter_table(steps: Sequence[StepRecord], summary: MergeSummary) -> Table:
    """A row for each parameter; those of a step that differ by a number alone, as experts do, share one."""
    names = [total.candidate for total in summary.changes]
    rows = []
    for step in steps:
        alike: dict[tuple[str, str], list[ChangeRecord]] = {}
        for change in step.changes:
            alike.setdefault((summarize_names([change.parameter]), change.rule), []).append(change)
        for changes in alike.values():
            name = changes[0].parameter if len(changes) == 1 else summarize_names(c.parameter for c in changes)
            totals = [_total_of(candidate, changes) for candidate in names]
            cells = [(NOTHING, NOTHING) if one is None else _change_cells(one) for one in totals]
            rows.append((name, changes[0].rule, *(text for pair in cells for text in pair)))
    return Table(
        caption="What each candidate changed by parameter, relative to the base, and what the merged model kept of it",
        columns=("parameter", "rule", *("changed", "kept") * len(names)),
        spans=(("", 2), *((name, 2) for name in names)),
        rows=tuple(rows),
        words=frozenset({1}),
    )


def hidden_state_table(biases: Sequence[BiasRecord]) -> Table:
    """A row for each depth, averaged over the candidates."""
    models = list(dict.fromkeys(bias.model for bias in biases))
    depths = sorted({bias.depth for bias in biases})

    def mean(model: str, depth: int, value: Callable[[BiasRecord], float]) -> float | None:
        found = [value(bias) for bias in biases if (bias.model, bias.depth) == (model, depth)]
        return math.fsum(found) / len(found) if found else None

    def cells(depth: int) -> Iterator[str]:
        for model in models:
            yield number(mean(model, depth, lambda bias: bias.l1))
            yield number(mean(model, depth, lambda bias: bias.cosine))

    return Table(
        caption="Distance of hidden states from each candidate's own, mean of all candidates",
        columns=("depth", *("L1", "1 − cosine") * len(models)),
        spans=(("", 1), *((model, 2) for model in models)),
        rows=tuple((str(depth), *cells(depth)) for depth in depths),
    )


def short_group(group: str) -> str:
    """An input group's name without the words that all have."""
    return group.removeprefix("input of ")


def _score_row(row: DatasetScores) -> tuple[str, ...]:
    sign = 1 if row.higher_is_better else -1
    gains = [None if gain is None else sign * gain for gain in (row.gain_over_mean, row.gain_over_candidate)]
    scores = [getattr(row, model) for model in _MODELS] + list(row.others.values())
    return (row.dataset, *map(score, scores), *map(difference, gains), share(row.share_of_gain))


def _total_of(candidate: str, changes: Sequence[ChangeRecord]) -> ChangeTotal | None:
    own = [change for change in changes if candidate in change.candidates]
    return total_change(candidate, None, own) if own else None


def _change_cells(total: ChangeTotal) -> tuple[str, str]:
    return share(relative_change(total)), share(total.kept)
