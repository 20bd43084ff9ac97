"""The picture of scores on held-out rows: base, mean, merged model and the candidate itself, for each data set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regstream.reporting.canvas import Canvas, Picture
from regstream.reporting.scores import DatasetScores, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_PIXELS, _OTHER_PIXELS, _OTHER_PIXELS_NARROW = 30, 90, 115
#: Fields of the scores, with the marker, its size, and how the legend names it.
_MARKERS = (
    ("base", "|", 150, "base"),
    ("mean", "D", 40, "mean"),
    ("merged", "o", 70, "merged"),
    ("candidate", "*", 110, "the candidate itself"),
)


@dataclass(frozen=True, kw_only=True)
class ScorePicture(Picture):
    """A row of marks for each data set."""

    scores: Scores

    def draw(self, canvas: Canvas) -> "Figure":
        """Draw it."""
        rows = self.scores.datasets
        other = _OTHER_PIXELS_NARROW if canvas.is_narrow else _OTHER_PIXELS
        figure = canvas.figure(_ROW_PIXELS * len(rows) + other)
        axes = figure.subplots()
        for field, marker, size, label in _MARKERS:
            found = [(getattr(row, field), place) for place, row in enumerate(rows)]
            points = [(score, place) for score, place in found if score is not None]
            if points:
                axes.scatter(
                    [score for score, _ in points],
                    [place for _, place in points],
                    marker=marker,
                    s=size,
                    color=getattr(canvas.palette, field),
                    label=label,
                    zorder=3,
                    linewidths=2 if marker == "|" else 0,
                )
        axes.set_yticks(range(len(rows)), [canvas.shorten(row.dataset) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.set_xlabel(f"{self.scores.metric}, {direction(self.scores)}")
        figure.legend(loc="outside upper left", ncols=2 if canvas.is_narrow else 4, handletextpad=0.3)
        return figure


def score_picture(scores: Scores | None) -> ScorePicture | None:
    """The picture; None where nothing was evaluated."""
    if scores is None:
        return None
    finding = "; ".join(_describe(row) for row in scores.datasets)
    return ScorePicture(
        name="scores",
        title="Scores on held-out rows",
        finding=f"{scores.metric.capitalize()} by candidate, {direction(scores)}. {finding}.",
        scores=scores,
    )


def direction(scores: Scores) -> str:
    """Which scores are better."""
    return "higher is better" if scores.higher_is_better else "lower is better"


def _describe(row: DatasetScores) -> str:
    found = [(label, getattr(row, field)) for field, _, _, label in _MARKERS]
    return f"{row.dataset}: " + ", ".join(f"{label} {score:.3f}" for label, score in found if score is not None)
