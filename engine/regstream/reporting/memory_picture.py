"""The picture of memory: each step's measured peak beside the one that the plan projected."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regstream.reporting.canvas import Canvas, Picture
from regstream.reporting.depth_axis import step_ticks
from regstream.reporting.measurements import MeasuredStep, Measurements
from regstream.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GIB = 1 << 30
_PANEL_PIXELS, _OTHER_PIXELS, _MAX_TICKS = 170, 50, 14


@dataclass(frozen=True, kw_only=True)
class MemoryPicture(Picture):
    """A panel for the process, and one for the accelerator if there is one."""

    steps: tuple[MeasuredStep, ...]
    has_device: bool

    def draw(self, canvas: Canvas) -> "Figure":
        """Draw them, one above the other."""
        panels = [("process", "peak_bytes", "projected_bytes")]
        if self.has_device:
            panels.append(("accelerator", "device_peak_bytes", "device_projected_bytes"))
        figure = canvas.figure(len(panels) * _PANEL_PIXELS + _OTHER_PIXELS)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for place, (title, measured, projected) in zip(axes.flat, panels, strict=True):
            self._draw_panel(place, canvas, measured, projected)
            if self.has_device:
                canvas.title(place, title)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
        return figure

    def _draw_panel(self, axes: "Axes", canvas: Canvas, measured: str, projected: str) -> None:
        places = list(range(len(self.steps)))
        axes.bar(
            places,
            [getattr(step, measured) / _GIB for step in self.steps],
            width=0.72,
            color=canvas.palette.merged,
            label="measured",
            zorder=2,
        )
        levels = [getattr(step, projected) / _GIB for step in self.steps]
        edges = [place - 0.5 for place in (*places, len(places))]
        axes.stairs(levels, edges, color=canvas.palette.mean, linewidth=1.8, label="projected", zorder=3, baseline=None)
        labels = [step.name.removeprefix("block ") for step in self.steps]
        axes.set_xticks(*step_ticks(labels, 6 if canvas.is_narrow else _MAX_TICKS))
        axes.set_ylabel("GiB")
        axes.grid(axis="y", zorder=0)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.01)


def memory_picture(measurements: Measurements | None) -> MemoryPicture | None:
    """The picture; None where nothing was measured."""
    if measurements is None:
        return None
    peak, device = measurements.peak_step, measurements.device_peak_step
    finding = f"Peak memory by step. The highest of the process is {_describe(peak.peak_bytes, peak.projected_bytes)}"
    finding += f", in {peak.name}."
    if device is not None:
        highest = _describe(device.device_peak_bytes, device.device_projected_bytes)
        finding += f" The highest of the accelerator is {highest}, in {device.name}."
    return MemoryPicture(
        name="memory",
        title="Peak memory by step, measured beside projected",
        finding=finding,
        steps=tuple(measurements.steps),
        has_device=device is not None,
    )


def _describe(measured: int, projected: int) -> str:
    return f"{format_bytes(measured)}, projected {format_bytes(projected)}"
