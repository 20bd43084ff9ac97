"""Seven ways in which images go bad, as in Hendrycks and Dietterich (ICLR 2019), for images of any size.

How bad is set for images of 32 pixels: lengths are shares of the shorter side, the rest does not depend on size.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Values = NDArray[np.float64]


def corrupt(name: str, image: Image.Image, seed: int) -> Image.Image:
    """An image of the same size that has gone bad in the way of that name; the same for the same seed."""
    return CORRUPTIONS[name](image.convert("RGB"), np.random.default_rng(seed))


def motion_blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Smeared along a line a sixth of the side long."""
    length = max(3, round(min(image.size) / 6))
    turn = rng.uniform(0, math.pi)
    steps = np.linspace(-length / 2, length / 2, 2 * length + 1)
    moved = [_shifted(image, step * math.cos(turn), step * math.sin(turn)) for step in steps]
    return _image(np.mean(moved, axis=0))


def impulse_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Every tenth value black or white."""
    values = _values(image)
    hit = rng.uniform(size=values.shape) < 0.1
    return _image(np.where(hit, 255.0 * rng.integers(0, 2, values.shape), values))


def gaussian_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A deviation of 0.14 of white."""
    values = _values(image)
    return _image(values + rng.normal(0, 0.14 * 255, values.shape))


def pixelate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half the resolution."""
    del rng
    small = (max(1, image.width // 2), max(1, image.height // 2))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def spatter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Drops of mud on a tenth of it."""
    raw = Image.fromarray(rng.integers(0, 256, (image.height, image.width), dtype=np.uint8))
    drops = _values(raw.filter(ImageFilter.GaussianBlur(min(image.size) / 22)))
    mask = np.clip((drops - np.quantile(drops, 0.88)) / max(float(np.ptp(drops)) * 0.05, 1e-9), 0, 1)[..., None]
    mud = np.array([63.0, 42.0, 20.0])
    return _image(_values(image) * (1 - mask) + mud * mask)


def contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A third of the contrast."""
    del rng
    values = _values(image)
    mean = values.mean(axis=(0, 1))
    return _image((values - mean) / 3 + mean)


def jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Quality 12 of 100."""
    del rng
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=12)
    return Image.open(stream).convert("RGB")


CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "motion blur": motion_blur,
    "impulse noise": impulse_noise,
    "Gaussian noise": gaussian_noise,
    "pixelate": pixelate,
    "spatter": spatter,
    "contrast": contrast,
    "JPEG": jpeg,
}


def _values(image: Image.Image) -> Values:
    return np.asarray(image, dtype=np.float64)


def _image(values: Values) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _shifted(image: Image.Image, right: float, down: float) -> Values:
    """Moved by parts of a pixel, what enters at an edge being the edge."""
    values = _values(image)
    rows = np.clip(np.arange(image.height) - down, 0, image.height - 1)
    columns = np.clip(np.arange(image.width) - right, 0, image.width - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, far = np.minimum(top + 1, image.height - 1), np.minimum(left + 1, image.width - 1)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = values[top][:, left] * (1 - x) + values[top][:, far] * x
    lower = values[bottom][:, left] * (1 - x) + values[bottom][:, far] * x
    moved: Values = upper * (1 - y) + lower * y
    return moved
