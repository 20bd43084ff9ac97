"""Pictures of textures, each a formula on the plane with random direction, width, phase and colours."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from pictures.canvas import DRAWN, Floats, apart_from, colour, grid


def draw_texture(label: int, rng: np.random.Generator) -> Image.Image:
    """The texture of that place in TEXTURES, in two colours and all between."""
    first = colour(rng)
    second = apart_from([first], rng, 80.0)
    x, y = grid()
    turn = rng.uniform(0, math.pi)
    x, y = x * math.cos(turn) + y * math.sin(turn) + rng.uniform(-1, 1), y * math.cos(turn) - x * math.sin(turn)
    share = np.clip(list(TEXTURES.values())[label](x, y, rng), 0, 1)[..., None]
    return Image.fromarray((np.array(first) * (1 - share) + np.array(second) * share).astype(np.uint8))


def _frequency(rng: np.random.Generator) -> float:
    return math.pi * rng.uniform(2.0, 5.0)


def _sharp(wave: Floats, rng: np.random.Generator) -> Floats:
    """A wave from -1 to 1 as values from 0 to 1, its slopes more or less steep."""
    share: Floats = 0.5 + 0.5 * np.tanh(wave * rng.uniform(1.0, 6.0))
    return share


def _smooth(rng: np.random.Generator, radius: float) -> Floats:
    """Noise without fine detail, from 0 to 1."""
    raw = Image.fromarray(rng.integers(0, 256, (DRAWN, DRAWN), dtype=np.uint8))
    values = np.asarray(raw.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64)
    share: Floats = (values - values.min()) / max(float(np.ptp(values)), 1.0)
    return share


def _stripes(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    del y
    return _sharp(np.sin(_frequency(rng) * x), rng)


def _checks(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    frequency = _frequency(rng)
    return _sharp(np.sin(frequency * x) * np.sin(frequency * y) * 2, rng)


def _mesh(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    frequency = _frequency(rng)
    return _sharp(np.maximum(np.cos(frequency * x), np.cos(frequency * y)) * 4 - 3, rng)


def _dotted(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    frequency = _frequency(rng)
    return _sharp((np.cos(frequency * x) + np.cos(frequency * y)) * 2 - 1.6, rng)


def _rings(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    return _sharp(np.sin(_frequency(rng) * 1.3 * np.hypot(x, y + rng.uniform(-0.5, 0.5))), rng)


def _waves(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    bend = rng.uniform(0.12, 0.3) * np.sin(_frequency(rng) * y)
    return _sharp(np.sin(_frequency(rng) * (x + bend)), rng)


def _zigzag(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    bend = rng.uniform(0.15, 0.35) * np.abs((y * rng.uniform(2, 4)) % 2 - 1)
    return _sharp(np.sin(_frequency(rng) * (x + bend)), rng)


def _bricks(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    rows = y * rng.uniform(2.5, 4.5)
    along = x * rng.uniform(1.5, 2.5) + 0.5 * (np.floor(rows) % 2)
    gap = rng.uniform(0.12, 0.22)
    return ((rows % 1 > gap) & (along % 1 > gap / 2)).astype(np.float64)


def _grain(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    del x, y
    return _smooth(rng, rng.uniform(0.8, 1.6))


def _clouds(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    del x, y
    return _smooth(rng, rng.uniform(4, 8))


def _marble(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    del y
    return _sharp(np.sin(_frequency(rng) * x + 5 * _smooth(rng, rng.uniform(4, 7))), rng)


def _blots(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    del x, y
    return (_smooth(rng, rng.uniform(2.5, 4.5)) > rng.uniform(0.45, 0.6)).astype(np.float64)


TEXTURES: dict[str, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "stripes": _stripes,
    "checks": _checks,
    "mesh": _mesh,
    "dotted": _dotted,
    "rings": _rings,
    "waves": _waves,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "grain": _grain,
    "clouds": _clouds,
    "marble": _marble,
    "blots": _blots,
}
