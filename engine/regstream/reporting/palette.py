"""The colours of pictures: fixed ones for files, and those of the page, which follow its colour scheme."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Palette:
    """A colour for each role in a picture, as `#rrggbb`."""

    text: str
    muted: str
    rule: str
    merged: str
    mean: str
    candidate: str
    base: str


#: Of pictures in files, which have a white background.
PAPER = Palette(
    text="#1b1f24",
    muted="#59636e",
    rule="#d1d9e0",
    merged="#0757ba",
    mean="#b35900",
    candidate="#18794e",
    base="#59636e",
)
#: Placeholders in pictures of the page; `css_color` says what takes their places.
PAGE = Palette(**{field.name: f"#0102{number:02x}" for number, field in enumerate(fields(Palette))})
#: Perceptually uniform, and told apart whatever colours a reader sees. Of what is the better the less, and the more.
RESIDUAL_COLORS, CHANGE_COLORS, KEPT_COLORS = "cividis", "cividis", "viridis"


def css_colors() -> dict[str, str]:
    """What takes the place of each colour of `PAGE` in the page's SVG: a variable of its style sheet."""
    return {getattr(PAGE, field.name): f"var(--{field.name})" for field in fields(Palette)}
