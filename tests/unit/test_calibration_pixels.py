"""Calibration sets of images: which rows, in which batches, and what is no image of the model's size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig

from architectures import clip_vision
from checkpoints import IMAGE_SIZE, IMAGE_TOKENS, PATCH_SIZE, random_images, write_images
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

CPU = torch.device("cpu")


def load(path: Path, *, seed: int = 0, warnings: list[str] | None = None, **settings: Any) -> CalibrationSet:
    return load_calibration(
        Calibration(path=path, **settings),
        architecture=clip_vision(),
        config=CLIPVisionConfig(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE),
        base=path.parent,
        seed=seed,
        warn=(warnings if warnings is not None else []).append,
    )


def pixels_of(rows: CalibrationSet, dtype: torch.dtype = torch.float32) -> Tensor:
    batches = [rows.inputs(index, dtype=dtype, device=CPU) for index in range(len(rows.batches))]
    return torch.cat([batch["pixel_values"] for batch in batches])


def test_images_come_in_their_order_and_batches(tmp_path: Path) -> None:
    pixels = random_images(7, seed=0)
    rows = load(write_images(tmp_path / "rows.safetensors", pixels), batch_rows=3)
    assert torch.equal(pixels_of(rows), pixels)
    assert [batch.lengths for batch in rows.batches] == [(IMAGE_TOKENS,) * count for count in (3, 3, 1)]
    assert torch.equal(pixels_of(rows, torch.bfloat16), pixels.bfloat16())


def test_images_are_drawn_by_the_seed(tmp_path: Path) -> None:
    pixels = random_images(30, seed=0)
    path = write_images(tmp_path / "rows.safetensors", pixels)
    drawn = [pixels_of(load(path, rows=6, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape[0] == 6
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_fewer_images_than_were_asked_for_are_warned_of(tmp_path: Path) -> None:
    warnings: list[str] = []
    load(write_images(tmp_path / "rows.safetensors", random_images(3, seed=0)), rows=9, warnings=warnings)
    assert warnings == ["rows.safetensors: has 3 rows, fewer than rows = 9; using all 3"]


def test_the_digest_changes_with_content_order_and_batches(tmp_path: Path) -> None:
    pixels, path = random_images(4, seed=0), tmp_path / "rows.safetensors"
    origin = load(write_images(path, pixels)).digest
    assert load(path).digest == origin
    batched = load(path, batch_rows=2).digest
    changed = pixels.clone()
    changed[2, 1, 3, 3] += 1
    others = [load(write_images(path, other)).digest for other in (changed, pixels.flip(0), pixels[:3])]
    assert len({origin, batched, *others}) == 5


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE + 1), "expected .rows, 3, 24, 24."),
        (torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE), "expected .rows, 3, 24, 24."),
        (torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE), "expected .rows, 3, 24, 24."),
        (torch.zeros(0, 3, IMAGE_SIZE, IMAGE_SIZE), "expected .rows, 3, 24, 24."),
        (torch.full((2, 3, IMAGE_SIZE, IMAGE_SIZE), torch.nan), "rows 0-1 hold NaN or infinite values"),
        (torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8), "expected preprocessed, floating-point images"),
    ],
)
def test_what_is_no_image_of_the_models_size_is_refused(tmp_path: Path, pixels: Tensor, message: str) -> None:
    path = write_images(tmp_path / "rows.safetensors", pixels)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: pixel_values ")


def test_a_file_without_pixels_is_refused(tmp_path: Path) -> None:
    save_file({"images": torch.zeros(1)}, tmp_path / "rows.safetensors")
    with pytest.raises(InputError, match="expected a tensor pixel_values, found images"):
        load(tmp_path / "rows.safetensors")
