"""What came of a sweep, for people: a CSV file, and a picture of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results import Result
from experiments.sweeps import Point, Sweep

Finished = Sequence[tuple[Point, Result]]

_WITHIN = 5  # rows that a legend inside a picture may have; a longer one would hide what it explains


def average(point: Point, result: Result) -> float | None:
    """Over the datasets that the point asks for; None where there is no score."""
    return fmean(result.scores[name] for name in point.over or result.scores) if result.scores else None


def write_csv(path: Path, finished: Finished) -> None:
    """A line a point: row, setting, average, the score on each dataset, and why there is none."""
    datasets = list(dict.fromkeys(name for _, result in finished for name in result.scores))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["model", "setting", "average", *datasets, "failure"])
        for point, result in finished:
            scores = [f"{result.scores[name]:.4f}" if name in result.scores else "" for name in datasets]
            mean = average(point, result)
            writer.writerow([point.row, point.setting, "" if mean is None else f"{mean:.4f}", *scores, result.failure])


def draw(path: Path, sweep: Sweep, finished: Finished) -> None:
    """The averages: a line or a colour a row, a place a setting."""
    rows = list(dict.fromkeys(point.row for point, _ in finished))
    settings = list(dict.fromkeys(point.setting for point, _ in finished))
    values = {(point.row, point.setting): average(point, result) for point, result in finished}
    figure, (axes,) = new_axes(columns=1)
    if len(settings) == 1:
        axes.barh(rows[::-1], [values[row, settings[0]] or 0.0 for row in rows[::-1]])
    elif sweep.kind == "lines":
        for row in rows:
            known = [(setting, values.get((row, setting))) for setting in settings]
            axes.plot([s for s, v in known if v is not None], [v for _, v in known if v is not None], "o-", label=row)
    else:
        _bars(axes, rows, settings, values)
    _label(axes, sweep, finished, single=len(settings) == 1)
    save(figure, path)


def new_axes(columns: int) -> tuple[Figure, list[Axes]]:
    """A picture with places for drawing beside each other."""
    figure, axes = plt.subplots(1, columns, figsize=(7.5, 4.2), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def save(figure: Figure, path: Path) -> None:
    """Write a picture, small."""
    figure.savefig(path, dpi=80, metadata={"Software": None})
    plt.close(figure)


def _bars(axes: Axes, rows: list[str], settings: list[str], values: dict[tuple[str, str], float | None]) -> None:
    width = 0.8 / len(rows)
    for place, row in enumerate(rows):
        heights = [values.get((row, setting)) or float("nan") for setting in settings]
        axes.bar([index + place * width for index in range(len(settings))], heights, width, label=row)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(settings))], settings, rotation=25, ha="right")
    known = [value for value in values.values() if value is not None]
    axes.set_ylim(max(0.0, min(known, default=0.0) - 0.1))


def _label(axes: Axes, sweep: Sweep, finished: Finished, *, single: bool) -> None:
    metric = next((result.metric for _, result in finished if result.metric), "")
    title = f"{metric}, average over tasks"
    if single:
        axes.set_xlabel(title)
        return
    axes.set_xlabel(sweep.axis)
    axes.set_ylabel(title)
    axes.grid(visible=True, axis="y", alpha=0.3)
    if len(axes.get_legend_handles_labels()[1]) > _WITHIN:
        axes.figure.legend(fontsize="x-small", loc="outside right upper")
    else:
        axes.legend(fontsize="small")
