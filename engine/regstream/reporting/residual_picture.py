"""The picture of residuals: each candidate's by block and input group, of the merged weights and of the mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from regstream.output.merge_summary import MergeSummary, percent, root_mean_square
from regstream.output.record_schema import CandidateResidual, StepRecord
from regstream.reporting.canvas import Canvas, Picture
from regstream.reporting.heat_map import ROW_PIXELS, draw_color_bar, draw_heat_map, scale_of
from regstream.reporting.palette import RESIDUAL_COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Weights = Literal["merged", "mean"]
_TITLES: dict[Weights, str] = {"merged": "merged", "mean": "mean"}
_PANEL_PIXELS, _BAR_PIXELS = 30, 75


@dataclass(frozen=True, kw_only=True)
class ResidualPicture(Picture):
    """Two heat maps for each candidate, all of one scale."""

    candidates: tuple[str, ...]
    groups: tuple[str, ...]
    blocks: tuple[str, ...]
    values: dict[tuple[str, Weights], NDArray[np.float64]]  # groups x blocks

    def draw(self, canvas: Canvas) -> "Figure":
        """Draw them: the merged weights beside the mean, above it on a narrow canvas."""
        panels = [(name, weights) for name in self.candidates for weights in _TITLES]
        shape = (len(panels), 1) if canvas.is_narrow else (len(self.candidates), 2)
        panel_pixels = ROW_PIXELS * len(self.groups) + _PANEL_PIXELS
        figure = canvas.figure(shape[0] * panel_pixels + _BAR_PIXELS)
        axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        scale = scale_of([float(value) for grid in self.values.values() for value in grid.flat])
        for place, (name, weights) in zip(axes.flat, panels, strict=True):
            image = draw_heat_map(
                place,
                canvas,
                self.values[name, weights],
                rows=self.groups,
                columns=self.blocks,
                scale=scale,
                colors=RESIDUAL_COLORS,
            )
            canvas.title(place, f"{canvas.shorten(name)}, {_TITLES[weights]}")
        for place in axes[-1]:
            place.set_xlabel("block")
        draw_color_bar(figure, canvas, image, axes=list(axes.flat), scale=scale, label="relative residual")
        return figure


def residual_picture(steps: Sequence[StepRecord], summary: MergeSummary) -> ResidualPicture | None:
    """The picture; None where nothing was regressed, or the record has no residuals."""
    steps = [step for step in steps if step.residuals]
    if not summary.residuals:
        return None
    names = tuple(total.candidate for total in summary.residuals)
    patterns = list(dict.fromkeys(_pattern(record.group) for step in steps for record in step.residuals))
    values: dict[tuple[str, Weights], NDArray[np.float64]] = {}
    for name in names:
        found = [_of_candidate(step, name) for step in steps]
        for weights in _TITLES:
            grid = [[_average(by_group.get(p, []), weights) for by_group in found] for p in patterns]
            values[name, weights] = np.array(grid)
    return ResidualPicture(
        name="residuals",
        title="Relative residuals by depth",
        finding=_finding(summary),
        candidates=names,
        groups=tuple(_short(pattern, patterns) for pattern in patterns),
        blocks=tuple(step.name.removeprefix("block ") for step in steps),
        values=values,
    )


def _pattern(group: str) -> str:
    """An input group's name; experts and the like are one row, since there may be hundreds."""
    return re.sub(r"(?<![a-z])\d+(?![a-z])", "*", group.removeprefix("input of "))


def _short(pattern: str, patterns: Sequence[str]) -> str:
    """The last part of a name, if no other group has it."""
    last = pattern.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in patterns) == 1 else pattern


def _of_candidate(step: StepRecord, name: str) -> dict[str, list[CandidateResidual]]:
    found: dict[str, list[CandidateResidual]] = {}
    for record in step.residuals:
        if name in record.candidates:
            found.setdefault(_pattern(record.group), []).append(record.candidates[name])
    return found


def _average(found: Sequence[CandidateResidual], weights: Weights) -> float:
    return root_mean_square([value for residual in found if (value := getattr(residual, weights)) is not None])


def _finding(summary: MergeSummary) -> str:
    totals = "; ".join(
        f"{total.candidate}: {percent(total.merged)} with the merged weights, {percent(total.mean)} with the mean"
        for total in summary.residuals
    )
    worst = summary.residuals_by_group[0]
    return (
        f"Heat maps of relative residuals by block and input group. Root mean squares: {totals}. The largest is"
        f" {percent(worst.merged)}, of {worst.candidate} in {worst.step}, {worst.group}."
    )
