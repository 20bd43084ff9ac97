"""Twenty tasks of telling pictures apart: what each one's classes are called, and how a picture of one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pictures import digits, faces, figures, glyphs, textures

Draw = Callable[[int, str, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Task:
    """`classes` are what a caption calls a picture; `draw(label, split, rng)` makes one, not yet worn."""

    name: str
    classes: tuple[str, ...]
    draw: Draw


def _signs(name: str, signs: str) -> Task:
    classes = tuple(map(glyphs.name, signs))
    return Task(name, classes, lambda label, _, rng: glyphs.draw_sign(signs[label], rng))


def _figures(name: str, classes: list[str], draw: Callable[[int, np.random.Generator], Image.Image]) -> Task:
    return Task(name, tuple(classes), lambda label, _, rng: draw(label, rng))


def _scripts() -> Task:
    letters = list(glyphs.SCRIPTS.values())
    classes = tuple(f"word in {script} script" for script in glyphs.SCRIPTS)
    return Task("scripts", classes, lambda label, _, rng: glyphs.draw_word(letters[label], rng))


EIGHT = (
    Task("digits", tuple(f"handwritten digit {name}" for name in digits.NAMES), digits.draw_digit),
    _signs("letters", glyphs.LATIN),
    _scripts(),
    _figures("textures", [f"texture of {name}" for name in textures.TEXTURES], textures.draw_texture),
    _figures("shapes", list(figures.SHAPES), figures.draw_shape),
    _figures("numbers", [f"{name} dots" for name in figures.NUMBERS], figures.draw_number),
    _figures("directions", [f"arrow to the {name}" for name in figures.DIRECTIONS], figures.draw_direction),
    _figures("colours", [f"{name} disc among squares" for name in figures.COLOURS], figures.draw_colour),
)
TWELVE_MORE = (
    _signs("small-letters", glyphs.LATIN_SMALL),
    _signs("greek", glyphs.GREEK),
    _signs("cyrillic", glyphs.CYRILLIC),
    _signs("armenian", glyphs.ARMENIAN),
    _signs("georgian", glyphs.GEORGIAN),
    _signs("hebrew", glyphs.HEBREW),
    _signs("arabic", glyphs.ARABIC),
    _signs("signs", glyphs.SIGNS),
    _figures("relations", [f"dot {name} of a square" for name in figures.RELATIONS], figures.draw_relation),
    _figures("hours", [f"clock at {name}" for name in figures.HOURS], figures.draw_hour),
    _figures("flags", [f"flag with {name}" for name in figures.FLAGS], figures.draw_flag),
    _figures("faces", [f"{name} face" for name in faces.FACES], faces.draw_face),
)
TASKS = {task.name: task for task in (*EIGHT, *TWELVE_MORE)}
