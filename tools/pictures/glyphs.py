"""Pictures of letters and other signs, in every font at hand that has them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from pictures.canvas import DRAWN, Colour, apart_from, ground, ink

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_FAMILIES = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")


def _letters(first: str, last: str, without: str = "") -> str:
    return "".join(chr(code) for code in range(ord(first), ord(last) + 1) if chr(code) not in without)


LATIN = _letters("A", "Z")
LATIN_SMALL = _letters("a", "z")
GREEK = _letters("α", "ω", without="ς")
CYRILLIC = _letters("А", "Я")
ARMENIAN = _letters("Ա", "Ֆ")
GEORGIAN = _letters("ა", "ჰ")
HEBREW = _letters("א", "ת", without="ךםןףץ")
ARABIC = _letters("ا", "ي", without="ةػؼؽؾؿـ")
SYLLABICS = "ᐁᐃᐅᐊᐯᐱᐳᐸᑌᑎᑐᑕᑫᑭᑯᑲ"
TIFINAGH = "ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏⵓⵔⵕⵖⵙⵚⵛⵜⵟⵡⵢⵣⵥ"
SIGNS = "♠♣♥♦♪♫☀☁☂☃★☎☠☢☯☮♔♕♖♗♘♙✈✉"
SCRIPTS = {
    "latin": LATIN,
    "greek": GREEK,
    "cyrillic": CYRILLIC,
    "armenian": ARMENIAN,
    "georgian": GEORGIAN,
    "hebrew": HEBREW,
    "arabic": ARABIC,
    "syllabics": SYLLABICS,
    "tifinagh": TIFINAGH,
}


def name(sign: str) -> str:
    """What Unicode calls a sign, such as "greek small letter alpha"."""
    return unicodedata.name(sign).lower()


def draw_sign(sign: str, rng: np.random.Generator) -> Image.Image:
    """One sign: turned and slanted a little, anywhere near the middle, in front of parts of others."""
    image, paper = ground(rng)
    for _ in range(int(rng.integers(0, 3))):
        other, size = str(rng.choice(list(LATIN + GREEK))), int(rng.integers(14, 26))
        edge = [(-size / 3, DRAWN - size / 2)[int(rng.integers(2))], rng.uniform(0, DRAWN - size / 2)]
        x, y = rng.permuted(edge)
        ImageDraw.Draw(image).text((x, y), other, font=_font(other, rng, size), fill=apart_from([paper], rng, 60.0))
    _stamp(image, sign, rng, size=int(rng.integers(38, 56)), colour=ink([paper], rng), room=7.0, turn=18.0)
    return image


def draw_word(letters: str, rng: np.random.Generator) -> Image.Image:
    """Three letters of a script, one beside the other."""
    image, paper = ground(rng)
    colour = ink([paper], rng)
    for place in (-18, 0, 18):
        letter, size = str(rng.choice(list(letters))), int(rng.integers(22, 32))
        _stamp(image, letter, rng, size=size, colour=colour, room=4.0, turn=12.0, across=place)
    return image


def _stamp(
    image: Image.Image,
    sign: str,
    rng: np.random.Generator,
    *,
    size: int,
    colour: Colour,
    room: float,
    turn: float,
    across: float = 0.0,
) -> None:
    mask = Image.new("L", (DRAWN, DRAWN))
    middle = DRAWN / 2
    ImageDraw.Draw(mask).text((middle, middle), sign, font=_font(sign, rng, size), fill=255, anchor="mm")
    slant, (right, down) = rng.uniform(-0.25, 0.25), rng.uniform(-room, room, 2)
    mask = mask.rotate(rng.uniform(-turn, turn), Image.Resampling.BILINEAR)
    shear = (1.0, slant, -slant * middle - right - across, 0.0, 1.0, -down)
    mask = mask.transform((DRAWN, DRAWN), Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    image.paste(colour, (0, 0), mask)


def _font(sign: str, rng: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    return _sized(_having(sign)[int(rng.integers(len(_having(sign))))], size)


@lru_cache(maxsize=1024)
def _sized(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1024)
def _having(sign: str) -> list[Path]:
    found = [path for path, signs in _covered().items() if ord(sign) in signs]
    if not found:
        raise ValueError(f"no font of matplotlib has {sign!r} ({name(sign)})")
    return found


@lru_cache(maxsize=1)
def _covered() -> dict[Path, frozenset[int]]:
    files = sorted(path for path in _FONTS.glob("*.ttf") if path.stem.startswith(_FAMILIES))
    return {path: frozenset(TTFont(path, lazy=True).getBestCmap()) for path in files if "Display" not in path.stem}
