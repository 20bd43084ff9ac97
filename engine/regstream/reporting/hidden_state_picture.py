"""The picture of hidden states: how far each model's are from a candidate's own, by depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regstream.output.record_schema import BiasRecord
from regstream.reporting.canvas import Canvas, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_PIXELS, _OTHER_PIXELS, _MAX_COLUMNS = 150, 60, 3
_OTHER_STYLES = ("dashdot", "dotted", (0, (6, 2, 1, 2, 1, 2)))


@dataclass(frozen=True, kw_only=True)
class HiddenStatePicture(Picture):
    """A panel for each data set, in it a line for each model."""

    method: str
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    distances: dict[tuple[str, str], list[tuple[int, float]]]  # of a model on a data set: depth and 1 - cosine

    def draw(self, canvas: Canvas) -> "Figure":
        """Draw them, several side by side on a wide canvas."""
        columns = 1 if canvas.is_narrow else min(len(self.datasets), _MAX_COLUMNS)
        rows = -(-len(self.datasets) // columns)
        figure = canvas.figure(rows * _PANEL_PIXELS + _OTHER_PIXELS)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, dataset in zip(axes.flat, self.datasets, strict=False):
            for number, model in enumerate(self.models):
                points = self.distances.get((model, dataset), [])
                color, style = self._line(canvas, model, number)
                places, distances = zip(*points, strict=True) if points else ((), ())
                place.plot(places, distances, color=color, linestyle=style, label=model)
            canvas.title(place, canvas.shorten(dataset))
            place.grid(axis="y")
            place.tick_params(length=0)
            place.set_ylim(bottom=0)
            place.xaxis.get_major_locator().set_params(integer=True)
        lowest = list(axes.flat)[: len(self.datasets)][-columns:]
        for place in list(axes.flat)[len(self.datasets) :]:
            place.set_visible(False)
        for place in lowest:
            place.set_xlabel("depth, in blocks")
            place.tick_params(labelbottom=True)
        for place in axes[:, 0]:
            place.set_ylabel("1 − cosine")
        # Not by `get_legend_handles_labels`, which leaves out names that begin with an underscore.
        figure.legend(
            list(axes.flat[0].lines), self.models, loc="outside upper left", ncols=2 if canvas.is_narrow else 4
        )
        return figure

    def _line(self, canvas: Canvas, model: str, number: int) -> tuple[str, object]:
        if model == self.method:
            return canvas.palette.merged, "solid"
        if model == "mean":
            return canvas.palette.mean, "dashed"
        return canvas.palette.base, _OTHER_STYLES[number % len(_OTHER_STYLES)]


def hidden_state_picture(biases: Sequence[BiasRecord] | None, method: str) -> HiddenStatePicture | None:
    """The picture; None where nothing was measured."""
    if not biases:
        return None
    distances: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for bias in biases:
        distances.setdefault((bias.model, bias.dataset), []).append((bias.depth, bias.cosine))
    for points in distances.values():
        points.sort()
    last = [
        f"{dataset}, {model}: {points[-1][1]:.3g} after the last block"
        for (model, dataset), points in distances.items()
    ]
    finding = f"Lines of 1 − cosine similarity with the candidate's own hidden states. At the end: {'; '.join(last)}."
    return HiddenStatePicture(
        name="hidden-states",
        title="Distance of hidden states from each candidate's own, by depth",
        finding=finding,
        method=method,
        models=tuple(dict.fromkeys(model for model, _ in distances)),
        datasets=tuple(dict.fromkeys(dataset for _, dataset in distances)),
        distances=distances,
    )
