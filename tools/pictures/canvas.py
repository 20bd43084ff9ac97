"""What figures are drawn on, in which colours, and the wear that a drawn picture gets."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 32  # pixels of a picture's side
DRAWN = 2 * SIZE  # of what is drawn before it is made smaller

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
Points = list[tuple[float, float]]


def colour(rng: np.random.Generator) -> Colour:
    """Any colour."""
    return hsv(rng.uniform(), rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour by hue, saturation and value, each from 0 to 1; the hue may go round."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def apart_from(others: Sequence[Colour], rng: np.random.Generator, distance: float = 110.0) -> Colour:
    """A colour that can be told from others by at least `distance` of 442 in RGB."""
    while True:
        found = colour(rng)
        if all(math.dist(found, other) >= distance for other in others):
            return found


def ink(others: Sequence[Colour], rng: np.random.Generator, distance: float = 110.0) -> Colour:
    """A light colour that can be told from others, dark ones most of all."""
    while True:
        found = hsv(rng.uniform(), rng.uniform(0.0, 0.8), rng.uniform(0.75, 1.0))
        if all(math.dist(found, other) >= distance for other in others):
            return found


def ground(rng: np.random.Generator) -> tuple[Image.Image, Colour]:
    """A dark canvas with a gradient of one colour into one near it, and the first of the two."""
    first = hsv(rng.uniform(), rng.uniform(0.2, 1.0), rng.uniform(0.05, 0.45))
    second = np.clip(np.array(first) + rng.uniform(-40, 40, 3), 0, 255)
    across = ramp(rng.uniform(0, 2 * math.pi))[..., None]
    values = np.array(first) * (1 - across) + second * across
    return Image.fromarray(values.astype(np.uint8)), first


def ramp(angle: float) -> Floats:
    """Values from 0 to 1 across a canvas in some direction, (DRAWN, DRAWN)."""
    x, y = grid()
    along = x * math.cos(angle) + y * math.sin(angle)
    share: Floats = (along - along.min()) / (along.max() - along.min())
    return share


def grid() -> tuple[Floats, Floats]:
    """The places x and y of a canvas's pixels, from -1 to 1, (DRAWN, DRAWN) each."""
    line = np.linspace(-1.0, 1.0, DRAWN)
    x, y = np.meshgrid(line, line)
    return x, y


def placed(points: Points, centre: tuple[float, float], radius: float, angle: float) -> Points:
    """Points around the origin, turned by an angle, made larger and moved to their place on the canvas."""
    cosine, sine = math.cos(angle) * radius, math.sin(angle) * radius
    return [(centre[0] + x * cosine - y * sine, centre[1] + x * sine + y * cosine) for x, y in points]


def somewhere(rng: np.random.Generator, radius: float) -> tuple[float, float]:
    """A place that leaves so much room to every side of the canvas."""
    x, y = rng.uniform(radius, DRAWN - radius, 2)
    return float(x), float(y)


def worn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture that is kept: smaller, with less contrast, and with noise."""
    small = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float64)
    contrast, light = rng.uniform(0.6, 1.0), rng.uniform(-20, 20)
    noise = rng.normal(0, rng.uniform(2, 18), small.shape)
    return Image.fromarray(np.clip((small - 128) * contrast + 128 + light + noise, 0, 255).astype(np.uint8))
