"""Handwritten digits: scikit-learn's copy of the UCI test set of optically recognised digits (43 people, 8 x 8 pixels).

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from pictures.canvas import DRAWN, ground, ink

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Of every ten handwritten ones, in their order, those that a split is made from.
_SHARES = {"pretraining": (0, 1), "training": (2, 3, 4, 5, 6), "test": (7, 8, 9)}


def draw_digit(label: int, split: str, rng: np.random.Generator) -> Image.Image:
    """One that nobody wrote for another split, in any colours, turned and moved a little."""
    written = _written()[label, split]
    strokes = Image.fromarray((written[int(rng.integers(len(written)))] * 15.9).astype(np.uint8))
    side = int(rng.integers(38, 62))
    strokes = strokes.resize((side, side), Image.Resampling.BICUBIC)
    strokes = strokes.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    image, paper = ground(rng)
    left, top = rng.integers(0, DRAWN - side + 1, 2)
    image.paste(ink([paper], rng), (int(left), int(top)), strokes)
    return image


@lru_cache(maxsize=1)
def _written() -> dict[tuple[int, str], NDArray[np.float64]]:
    digits = load_digits()
    share = np.arange(len(digits.target)) % 10
    return {
        (label, split): digits.images[(digits.target == label) & np.isin(share, kept)]
        for label in range(len(NAMES))
        for split, kept in _SHARES.items()
    }
