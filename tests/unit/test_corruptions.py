"""Corruptions change an image, keep its size, and are the same for the same seed."""

import numpy as np
import pytest
from PIL import Image

from experiments.corruptions import CORRUPTIONS, corrupt

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
RANDOM = {"motion blur", "impulse noise", "Gaussian noise", "spatter"}


def test_there_are_seven() -> None:
    assert len(CORRUPTIONS) == 7


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_changes_and_keeps_its_size(name: str) -> None:
    changed = corrupt(name, IMAGE, 0)
    assert (changed.size, changed.mode) == (IMAGE.size, "RGB")
    assert np.abs(np.asarray(changed, dtype=float) - np.asarray(IMAGE, dtype=float)).mean() > 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_decides(name: str) -> None:
    first, again, other = (np.asarray(corrupt(name, IMAGE, seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name not in RANDOM)


def test_contrast_keeps_the_mean_and_divides_the_spread() -> None:
    changed = np.asarray(corrupt("contrast", IMAGE, 0), dtype=float)
    values = np.asarray(IMAGE, dtype=float)
    assert changed.mean() == pytest.approx(values.mean(), abs=0.5)
    assert changed.std() == pytest.approx(values.std() / 3, rel=0.05)


def test_motion_smears_a_flat_image_into_itself() -> None:
    flat = Image.new("RGB", (32, 32), (10, 200, 90))
    assert np.array_equal(np.asarray(corrupt("motion blur", flat, 3)), np.asarray(flat))


def test_impulses_are_black_or_white() -> None:
    before, after = (np.asarray(image) for image in (IMAGE, corrupt("impulse noise", IMAGE, 0)))
    hit = before != after
    assert set(after[hit]) == {0, 255}
    assert 0.06 < hit.mean() < 0.14
