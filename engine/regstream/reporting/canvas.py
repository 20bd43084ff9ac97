"""Figures of matplotlib in the report's style, as inline SVG and as PNG, without the state of pyplot."""

import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regstream.reporting.inline_svg import inline_svg
from regstream.reporting.palette import PAGE, PAPER, Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: In pixels: of the page beside its margins, and of the narrowest phone.
WIDE, NARROW = 880, 328
_DPI = 72  # a point is a pixel, so that a font of 11 points is one of 11 pixels
_PNG_DPI = 144
_MAX_NAME_CHARS, _MAX_NAME_CHARS_NARROW = 28, 14


@dataclass(frozen=True)
class Canvas:
    """How large a picture may be, and its colours."""

    width: int
    palette: Palette

    @property
    def is_narrow(self) -> bool:
        """Whether panels stand below each other rather than side by side."""
        return self.width < WIDE

    def figure(self, height: float) -> "Figure":
        """An empty figure of the canvas's width; `height` is in pixels."""
        from matplotlib.figure import Figure

        return Figure(figsize=(self.width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")

    def shorten(self, name: str) -> str:
        """A name that fits beside a picture; the tables have the whole one."""
        limit = _MAX_NAME_CHARS_NARROW if self.is_narrow else _MAX_NAME_CHARS
        return name if len(name) <= limit else f"{name[: limit - 1]}…"

    def title(self, axes: "Axes", text: str) -> None:
        """Write a panel's title above its left edge."""
        axes.set_title(text, loc="left", fontsize=11, color=self.palette.text, pad=5)


@dataclass(frozen=True, kw_only=True)
class Picture(ABC):
    """A picture of a merge, drawn when it is asked for."""

    name: str
    title: str
    finding: str  # what it shows, for whoever cannot see it

    @abstractmethod
    def draw(self, canvas: Canvas) -> "Figure":
        """Draw it."""

    def png(self) -> bytes:
        """The bytes of a PNG file, on white; the same bytes each time."""
        stream = io.BytesIO()
        with _style(PAPER):
            figure = self.draw(Canvas(WIDE, PAPER))
            figure.savefig(stream, format="png", dpi=_PNG_DPI, facecolor="white", metadata={"Software": None})
        return stream.getvalue()

    def svg(self, *, narrow: bool) -> str:
        """An SVG element whose colours are variables of the page's style sheet, and whose texts are text."""
        stream = io.BytesIO()
        with _style(PAGE):
            figure = self.draw(Canvas(NARROW if narrow else WIDE, PAGE))
            figure.savefig(stream, format="svg", transparent=True)
        return inline_svg(stream.getvalue(), prefix=f"{self.name}-{'narrow' if narrow else 'wide'}-")


@contextmanager
def _style(palette: Palette) -> Iterator[None]:
    import matplotlib as mpl

    style: Any = {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so that the bytes are the same everywhere
        "font.size": 10,
        "text.color": palette.text,
        "text.parse_math": False,  # a name may contain dollars
        "axes.edgecolor": palette.rule,
        "axes.labelcolor": palette.muted,
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": palette.rule,
        "ytick.color": palette.rule,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "grid.color": palette.rule,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",  # texts stay text: they can be found, read aloud and scaled
        "svg.hashsalt": "regstream",
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # The page's fonts have the letters that this one lacks.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield
