"""Pictures of figures: their form, their number, their direction, their colour, where they stand."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from pictures.canvas import DRAWN, Colour, Points, apart_from, ground, hsv, ink, placed, somewhere

SHAPES = ("circle", "triangle", "square", "pentagon", "hexagon", "star", "cross", "crescent", "ring", "bolt")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
DIRECTIONS = ("east", "southeast", "south", "southwest", "west", "northwest", "north", "northeast")
RELATIONS = (*DIRECTIONS, "inside")
HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
#: Hue, saturation and value of each.
COLOURS = {
    "red": (0.0, 0.9, 0.85),
    "orange": (0.08, 0.95, 0.95),
    "yellow": (0.155, 0.9, 0.95),
    "green": (0.33, 0.8, 0.65),
    "cyan": (0.5, 0.8, 0.85),
    "blue": (0.63, 0.85, 0.85),
    "purple": (0.77, 0.75, 0.65),
    "pink": (0.92, 0.45, 1.0),
    "brown": (0.07, 0.75, 0.45),
    "grey": (0.0, 0.0, 0.55),
}


def regular(corners: int, inner: float = 1.0) -> Points:
    """The corners of a polygon around the origin; with an `inner` radius those of a star, turn about."""
    steps = corners if inner == 1.0 else 2 * corners
    radii = [1.0 if inner == 1.0 or step % 2 == 0 else inner for step in range(steps)]
    turns = [2 * math.pi * step / steps - math.pi / 2 for step in range(steps)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)]


def arc(start: float, stop: float, radius: float = 1.0, centre: float = 0.0) -> Points:
    """Points on a circle from one angle to another; its centre lies so far along x."""
    return [(centre + radius * math.cos(turn), radius * math.sin(turn)) for turn in np.linspace(start, stop, 24)]


_CROSS: Points = [
    (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
    (0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35),
]  # fmt: skip
_OUTLINES: dict[str, Points] = {
    "circle": arc(0, 2 * math.pi),
    "triangle": regular(3),
    "square": regular(4),
    "pentagon": regular(5),
    "hexagon": regular(6),
    "star": regular(5, 0.45),
    "cross": _CROSS,
    "crescent": arc(0.9, 2 * math.pi - 0.9) + arc(2 * math.pi - 1.25, 1.25, 0.83, 0.36),
    "bolt": [(0.1, -1), (-0.6, 0.2), (-0.05, 0.2), (-0.2, 1), (0.6, -0.25), (0.05, -0.25)],
}


def draw_shape(label: int, rng: np.random.Generator) -> Image.Image:
    """One of SHAPES, full or an outline, among stray lines."""
    image, paper = ground(rng)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        pen.line([somewhere(rng, 0), somewhere(rng, 0)], fill=apart_from([paper], rng, 60.0), width=2)
    radius, pigment = rng.uniform(12, 24), ink([paper], rng)
    centre, turn = somewhere(rng, radius), rng.uniform(0, 2 * math.pi)
    if SHAPES[label] == "ring":
        hole = radius * rng.uniform(0.4, 0.65)
        pen.polygon(placed(_OUTLINES["circle"], centre, radius, 0.0), fill=pigment)
        pen.polygon(placed(_OUTLINES["circle"], centre, hole, 0.0), fill=paper)
        return image
    points = placed(_OUTLINES[SHAPES[label]], centre, radius, turn)
    if SHAPES[label] != "circle" and rng.uniform() < 0.4:  # a circle's outline is a ring
        pen.line([*points, *points[:2]], fill=pigment, width=4)
    else:
        pen.polygon(points, fill=pigment)
    return image


def draw_number(label: int, rng: np.random.Generator) -> Image.Image:
    """Dots, one more than the label says, none on another."""
    image, paper = ground(rng)
    pen, dots = ImageDraw.Draw(image), list[tuple[float, float, float]]()
    same = ink([paper], rng) if rng.uniform() < 0.5 else None
    while len(dots) <= label:
        radius = rng.uniform(3.5, 7.5)
        x, y = somewhere(rng, radius)
        if all(math.dist((x, y), other[:2]) > radius + other[2] + 2 for other in dots):
            dots.append((x, y, radius))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=same or ink([paper], rng))
    return image


def draw_direction(label: int, rng: np.random.Generator) -> Image.Image:
    """An arrow, a wedge or two hooks that point to one of DIRECTIONS, more or less."""
    image, paper = ground(rng)
    pen, pigment = ImageDraw.Draw(image), ink([paper], rng)
    radius = rng.uniform(12, 24)
    centre = somewhere(rng, radius)
    turn = math.radians(45 * label + rng.uniform(-19, 19))
    match int(rng.integers(3)):
        case 0:
            pen.line(placed([(-1, 0), (0.8, 0)], centre, radius, turn), fill=pigment, width=int(rng.integers(2, 6)))
            pen.polygon(placed([(1, 0), (0.3, 0.5), (0.3, -0.5)], centre, radius, turn), fill=pigment)
        case 1:
            pen.polygon(placed([(1, 0), (-0.8, 0.55), (-0.4, 0), (-0.8, -0.55)], centre, radius, turn), fill=pigment)
        case _:
            for back in (0.0, 0.7):
                hook: Points = [(0.2 - back, -0.7), (0.9 - back, 0), (0.2 - back, 0.7)]
                pen.line(placed(hook, centre, radius, turn), fill=pigment, width=5)
    return image


def draw_colour(label: int, rng: np.random.Generator) -> Image.Image:
    """A disc of one of COLOURS among squares of others."""
    image, _ = ground(rng)
    pen = ImageDraw.Draw(image)
    others = [index for index in range(len(COLOURS)) if index != label]
    radius = rng.uniform(8, 14)
    x, y = somewhere(rng, radius)
    for other in rng.choice(others, int(rng.integers(2, 5)), replace=False):
        half = rng.uniform(6, 12)
        left, top = somewhere(rng, half)
        pen.rectangle((left - half, top - half, left + half, top + half), fill=_shade(int(other), rng))
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_shade(label, rng))
    return image


def _shade(index: int, rng: np.random.Generator) -> Colour:
    hue, saturation, value = list(COLOURS.values())[index]
    return hsv(hue + rng.normal(0, 0.012), saturation * rng.uniform(0.8, 1.0), value * rng.uniform(0.8, 1.05))


def draw_relation(label: int, rng: np.random.Generator) -> Image.Image:
    """A small disc beside a square, to one of DIRECTIONS, or inside it; a ring of the disc's size misleads."""
    image, paper = ground(rng)
    pen, pigment = ImageDraw.Draw(image), ink([paper], rng)
    half, radius = rng.uniform(9, 13), rng.uniform(3.5, 5.5)
    x, y = somewhere(rng, half + 2 * radius + 5)
    pen.rectangle((x - half, y - half, x + half, y + half), fill=pigment)
    places = [*range(len(DIRECTIONS)), None]
    for place, hollow in ((places[label], False), (places[int(rng.choice([p for p in range(8) if p != label]))], True)):
        turn = 0.0 if place is None else math.radians(45 * place + rng.uniform(-14, 14))
        away = 0.0 if place is None else half * (1.15 + 0.25 * (place % 2)) + radius + 1
        i, j = x + away * math.cos(turn) + rng.uniform(-1, 1), y + away * math.sin(turn) + rng.uniform(-1, 1)
        edge = (i - radius, j - radius, i + radius, j + radius)
        fill = apart_from([paper, pigment], rng, 90.0)
        pen.ellipse(edge, fill=None if hollow else fill, outline=fill, width=2)
    return image


def draw_hour(label: int, rng: np.random.Generator) -> Image.Image:
    """A clock whose short hand stands at one of HOURS and whose long hand stands anywhere."""
    image, paper = ground(rng)
    pen, face = ImageDraw.Draw(image), ink([paper], rng)
    radius = rng.uniform(20, 29)
    x, y = somewhere(rng, radius)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=face)
    pigment = apart_from([face], rng, 190.0)
    for mark in range(12):
        turn = math.radians(30 * mark)
        pen.line(placed([(0.88, 0), (1, 0)], (x, y), radius, turn), fill=pigment, width=2)
    minute = rng.uniform(0, 2 * math.pi)
    pen.line(placed([(0, 0), (0.85, 0)], (x, y), radius, minute), fill=pigment, width=1)
    hour = math.radians(30 * label - 90 + rng.uniform(-7, 7))
    pen.line(placed([(0, 0), (0.55, 0)], (x, y), radius, hour), fill=pigment, width=5)
    return image


FLAGS = (
    "vertical bands", "horizontal bands", "cross", "saltire", "disc", "hoist", "canton", "quarters",
    "border", "diagonal", "lozenge", "rays",
)  # fmt: skip


def draw_flag(label: int, rng: np.random.Generator) -> Image.Image:
    """A flag of one of the layouts FLAGS, in any colours, on any ground."""
    image, paper = ground(rng)
    first = apart_from([paper], rng, 60.0)
    second = apart_from([first], rng, 90.0)
    third = apart_from([first, second], rng, 70.0)
    width, height = rng.uniform(44, 58), rng.uniform(30, 44)
    flag = Image.new("RGB", (60, 40), first)
    _lay(ImageDraw.Draw(flag), FLAGS[label], second, third)
    if rng.uniform() < 0.5:
        flag = flag.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    flag = flag.resize((round(width), round(height))).convert("RGBA")
    flag = flag.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
    left, top = rng.uniform(0, 1, 2) * (DRAWN - np.array(flag.size))
    image.paste(flag, (round(left), round(top)), flag)
    return image


def _lay(pen: ImageDraw.ImageDraw, layout: str, second: Colour, third: Colour) -> None:  # noqa: PLR0912
    match layout:
        case "vertical bands":
            pen.rectangle((20, 0, 39, 40), fill=second)
            pen.rectangle((40, 0, 60, 40), fill=third)
        case "horizontal bands":
            pen.rectangle((0, 13, 60, 26), fill=second)
            pen.rectangle((0, 27, 60, 40), fill=third)
        case "cross":
            pen.rectangle((17, 0, 26, 40), fill=second)
            pen.rectangle((0, 15, 60, 24), fill=second)
        case "saltire":
            pen.line((0, 0, 60, 40), fill=second, width=8)
            pen.line((0, 40, 60, 0), fill=second, width=8)
        case "disc":
            pen.ellipse((18, 8, 42, 32), fill=second)
        case "hoist":
            pen.rectangle((0, 20, 60, 40), fill=second)
            pen.polygon([(0, 0), (28, 20), (0, 40)], fill=third)
        case "canton":
            pen.rectangle((0, 0, 28, 18), fill=second)
        case "quarters":
            pen.rectangle((0, 0, 29, 19), fill=second)
            pen.rectangle((30, 20, 60, 40), fill=second)
        case "border":
            pen.rectangle((0, 0, 59, 39), outline=second, width=8)
        case "diagonal":
            pen.polygon([(0, 0), (60, 0), (60, 40)], fill=second)
        case "lozenge":
            pen.polygon([(30, 2), (56, 20), (30, 38), (4, 20)], fill=second)
        case "rays":
            for ray in range(0, 360, 45):
                pen.pieslice((-30, -40, 90, 80), ray, ray + 22.5, fill=second)
