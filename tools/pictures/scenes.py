"""What every task's pictures are seen through: a light and ripples of its own, that the base never saw.

Published benchmarks are like that: street numbers, satellite images and textures each look their own way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pictures.canvas import SIZE, Floats

_GOLDEN = (math.sqrt(5) - 1) / 2
_HEIGHT = 60.0  # of a ripple, of 255, more or less


@dataclass(frozen=True, eq=False)
class Scene:
    """`light` turns colours, (3, 3); ripples run along `wave`, radians a pixel to the right and down, in a `tint`."""

    light: Floats
    wave: tuple[float, float]
    tint: Floats

    @classmethod
    def of(cls, index: int) -> Scene:
        """One of many that lie apart: what is counted up by an irrational step fills a circle evenly."""
        direction, length = math.pi * (index * _GOLDEN % 1), 3.0 + 5.0 * (index * math.sqrt(2) % 1)
        tint = _turned(index * 1.7 * _GOLDEN) @ np.array([1.0, 0.25, -0.35])
        across, down = (2 * math.pi / length * part for part in (math.cos(direction), math.sin(direction)))
        return cls(light=_turned(index * 0.37), wave=(across, down), tint=tint / np.abs(tint).max())

    def seen(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A picture in this scene; where ripples begin and how high they are is each picture's own."""
        y, x = np.mgrid[:SIZE, :SIZE]
        ripples = np.sin(self.wave[0] * x + self.wave[1] * y + rng.uniform(0, 2 * math.pi))
        ripples *= _HEIGHT * rng.uniform(0.7, 1.3)
        values = (np.asarray(image, dtype=np.float64) - 128) @ self.light.T + 128 + ripples[..., None] * self.tint
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _turned(share: float) -> Floats:
    """What turns hues by a share of the circle and leaves greys as they are, (3, 3)."""
    cosine, sine = math.cos(2 * math.pi * share), math.sin(2 * math.pi * share)
    around: Floats = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * sine / math.sqrt(3)
    return around + np.eye(3) * cosine + (1 - cosine) / 3
