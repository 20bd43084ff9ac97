"""The results of a family, for people: a table and a picture, a row a setting, the spread being that over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from experiments.results import Result
from experiments.table import Finished, new_axes, save

Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting: its scores by dataset for each seed that has some, how long a merge took, and why others have none."""

    title: str
    scores: Sequence[Scores]
    seconds: float
    failures: Sequence[str]

    @property
    def averages(self) -> list[float]:
        """The mean over datasets of each seed."""
        return [fmean(scores.values()) for scores in self.scores]

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds, where there are two or more."""
        return stdev(self.averages) if len(self.scores) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A family's results: of the base, of each candidate on its own dataset, of all settings."""

    metric: str
    higher_is_better: bool
    datasets: tuple[str, ...]
    base: Scores
    own: Scores
    rows: tuple[Row, ...]

    def gain_kept(self, row: Row) -> float | None:
        """How much of what a candidate gains over the base on its own dataset the merge has, the mean over datasets.

        None where the setting has no scores, or a candidate gains nothing.
        """
        better = 1 if self.higher_is_better else -1
        gains = {name: self.own[name] - self.base[name] for name in self.datasets}
        if not row.scores or min(better * gain for gain in gains.values()) <= 0:
            return None
        return fmean((scores[name] - self.base[name]) / gains[name] for scores in row.scores for name in self.datasets)


def report_of(finished: Finished) -> Report:
    """The report of a sweep whose base and candidates are all finished; of settings, those that are."""
    models: dict[str, Result] = {point.model: result for point, result in finished if point.model is not None}
    base = models.pop("base")
    titles = dict.fromkeys(point.row for point, _ in finished if point.model is None)
    return Report(
        metric=base.metric,
        higher_is_better=base.higher_is_better,
        datasets=tuple(models),
        base=base.scores,
        own={name: result.scores[name] for name, result in models.items()},
        rows=tuple(_row(title, [result for point, result in finished if point.row == title]) for title in titles),
    )


def _row(title: str, results: Sequence[Result]) -> Row:
    return Row(
        title=title,
        scores=[result.scores for result in results if result.scores],
        seconds=fmean(result.seconds for result in results),
        failures=[result.failure for result in results if result.failure],
    )


def markdown(report: Report) -> str:
    """The table: the mean over datasets, its spread over seeds, and the mean over seeds of every dataset."""
    head = ["model", report.metric, "± over seeds", "gain kept", *report.datasets, "seconds", "seeds"]
    lines = [head, ["---"] * len(head)]
    lines += [_model_cells("base", report.base, report), _model_cells("each candidate on its own", report.own, report)]
    lines += [_cells(row, report) for row in report.rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    failures = [f"{row.title}: {failure}" for row in report.rows for failure in dict.fromkeys(row.failures)]
    return table + "".join(f"\n{line}\n" for line in failures)


def _model_cells(title: str, scores: Scores, report: Report) -> list[str]:
    cells = [f"{scores[name]:.4f}" for name in report.datasets]
    return [title, f"{fmean(scores.values()):.4f}", "", "", *cells, "", ""]


def _cells(row: Row, report: Report) -> list[str]:
    if not row.scores:
        return [row.title, "failed", *[""] * (len(report.datasets) + 3), "0"]
    kept = report.gain_kept(row)
    return [
        row.title,
        f"{fmean(row.averages):.4f}",
        "" if row.spread is None else f"{row.spread:.4f}",
        "" if kept is None else f"{100 * kept:.1f} %",
        *(f"{fmean(scores[name] for scores in row.scores):.4f}" for name in report.datasets),
        f"{row.seconds:.0f}",
        str(len(row.scores)),
    ]


def draw(path: Path, report: Report) -> None:
    """A dot a setting with its spread, between lines for the base and for each candidate on its own dataset."""
    rows = [row for row in report.rows if row.scores]
    figure, (axes,) = new_axes(columns=1)
    figure.set_figheight(1.6 + 0.28 * len(rows))
    axes.axvline(fmean(report.base.values()), color="tab:red", linestyle="--", label="base")
    axes.axvline(fmean(report.own.values()), color="tab:green", linestyle="--", label="each candidate on its own")
    means, spreads = [fmean(row.averages) for row in rows], [row.spread or 0.0 for row in rows]
    axes.errorbar(means, range(len(rows)), xerr=spreads, fmt="o", capsize=3)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{report.metric}, mean over tasks ± over seeds")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(fontsize="small", loc="outside upper center", ncols=2)
    save(figure, path)
