"""The picture of changes: how much each candidate changed the base by depth, and how much of it the merge kept."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regstream.output.merge_summary import ChangeTotal, MergeSummary, percent
from regstream.reporting.canvas import Canvas, Picture
from regstream.reporting.heat_map import ROW_PIXELS, draw_color_bar, draw_heat_map, scale_of
from regstream.reporting.palette import CHANGE_COLORS, KEPT_COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_PIXELS, _GAP = 116, 0.12


@dataclass(frozen=True, kw_only=True)
class ChangePicture(Picture):
    """Two heat maps with a row for each candidate and a column for each step."""

    candidates: tuple[str, ...]
    steps: tuple[str, ...]
    relative: NDArray[np.float64]  # candidates x steps; as the others
    kept: NDArray[np.float64]

    def draw(self, canvas: Canvas) -> "Figure":
        """Draw one above the other: by the same depth."""
        figure = canvas.figure(2 * (ROW_PIXELS * len(self.candidates) + _PANEL_PIXELS))
        axes = figure.subplots(2, 1, squeeze=False, gridspec_kw={"hspace": _GAP})
        panels = (
            (self.relative, CHANGE_COLORS, "What each candidate changed", "‖Δ‖ / ‖base‖"),
            (self.kept, KEPT_COLORS, "What the merged model kept of it", "share of Δ that was kept"),
        )
        for place, (values, colors, title, label) in zip(axes.flat, panels, strict=True):
            scale = scale_of([float(value) for value in values.flat])
            rows = [canvas.shorten(name) for name in self.candidates]
            image = draw_heat_map(place, canvas, values, rows=rows, columns=self.steps, scale=scale, colors=colors)
            canvas.title(place, title)
            draw_color_bar(figure, canvas, image, axes=[place], scale=scale, label=label)
        return figure


def change_picture(summary: MergeSummary) -> ChangePicture | None:
    """The picture; None where the record has no changes."""
    if not summary.changes:
        return None
    names = tuple(total.candidate for total in summary.changes)
    steps = tuple(dict.fromkeys(total.step or "" for total in summary.changes_by_step))
    found = {(total.candidate, total.step): total for total in summary.changes_by_step}

    def grid(value: Callable[[ChangeTotal], float]) -> NDArray[np.float64]:
        return np.array([[value(found[n, s]) if (n, s) in found else math.nan for s in steps] for n in names])

    return ChangePicture(
        name="changes",
        title="Changes by depth",
        finding=_finding(summary.changes),
        candidates=names,
        steps=tuple(step.removeprefix("block ") for step in steps),
        relative=grid(relative_change),
        kept=grid(lambda total: math.nan if total.kept is None else total.kept),
    )


def relative_change(total: ChangeTotal) -> float:
    """‖Δ‖/‖W₀‖; NaN where the base is zero."""
    return total.norm / total.base_norm if total.base_norm > 0 else math.nan


def _finding(totals: Sequence[ChangeTotal]) -> str:
    found = "; ".join(map(_describe, totals))
    return f"Heat maps of the candidates' changes by step, and of the share that the merged model kept. {found}."


def _describe(total: ChangeTotal) -> str:
    if total.kept is None:
        return f"{total.candidate} changed nothing"
    change, kept = percent(relative_change(total)), percent(total.kept)
    return f"{total.candidate} changed the base by {change}, of which {kept} was kept"
