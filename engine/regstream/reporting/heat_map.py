"""Heat maps by depth: a row for each input group or candidate, a column for each step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regstream.output.merge_summary import percent
from regstream.reporting.canvas import Canvas
from regstream.reporting.depth_axis import step_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: The height of a row, in pixels.
ROW_PIXELS = 15
_BAR_GAP_PIXELS = 8
_MAX_TICKS, _MAX_TICKS_NARROW = 14, 6
#: A value this many times the other large ones would leave them all the same colour.
_OUTLIER = 1.5


@dataclass(frozen=True)
class Scale:
    """The values that have colours of their own; beyond them the ends of the map."""

    low: float
    high: float
    extend: str  # which of its ends are passed, as a colour bar says it


def scale_of(values: Sequence[float]) -> Scale:
    """From 0 to the largest value, or to the 98th percentile where a few are far above it."""
    finite = [value for value in values if math.isfinite(value)]
    top, most = max(finite, default=1.0), float(np.quantile(finite, 0.98)) if finite else 1.0
    high = most if most > 0 and top > _OUTLIER * most else top
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (min(finite, default=0.0) < 0, high < top), "neither"
    )
    return Scale(low=0.0, high=high if high > 0 else 1.0, extend=extend)


def draw_heat_map(
    axes: "Axes",
    canvas: Canvas,
    values: NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    colors: str,
) -> "AxesImage":
    """Draw values (rows x columns); NaN stays empty. Labels as many columns as there is room for."""
    image = axes.imshow(
        values, cmap=colors, vmin=scale.low, vmax=scale.high, aspect="auto", interpolation="none", rasterized=True
    )
    limit = _MAX_TICKS_NARROW if canvas.is_narrow else _MAX_TICKS
    axes.set_xticks(*step_ticks(columns, limit))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def draw_color_bar(
    figure: "Figure", canvas: Canvas, image: "AxesImage", *, axes: Sequence["Axes"], scale: Scale, label: str
) -> None:
    """Draw the scale of heat maps below them."""
    bar = figure.colorbar(
        image,
        ax=list(axes),
        location="bottom",
        extend=scale.extend,
        extendfrac=0.03,
        pad=_BAR_GAP_PIXELS / (figure.get_figheight() * figure.get_dpi()),
        aspect=20 if canvas.is_narrow else 40,
        shrink=0.9 if canvas.is_narrow else 0.5,
        anchor=(0.0, 0.5),
        format=lambda share, _: percent(share),
        label=label,
    )
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_rasterized(True)
    bar.ax.tick_params(length=0)
    bar.ax.xaxis.label.set_horizontalalignment("left")
    bar.ax.xaxis.label.set_x(0.0)
