"""Images are decoded one at a time, within a bound; processors and images that would fill the memory are refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig

from checkpoints import IMAGE_SIZE, PATCH_SIZE, write_image_processor
from regstream.calibration import CalibrationSet, load_calibration
from regstream.errors import InputError
from regstream.families.clip import CLIP_VISION
from regstream.manifest import Calibration
from regstream.memory import measured_peak, resident_bytes


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_image_processor(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def load(path: Path, base: Path, **settings: Any) -> CalibrationSet:
    config = CLIPVisionConfig(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    calibration = Calibration(path=path, **settings)
    return load_calibration(calibration, family=CLIP_VISION, config=config, base=base, seed=0, warn=lambda _: None)


def test_a_batch_of_large_images_takes_the_memory_of_one(images: Path, base: Path) -> None:
    for index in range(8):
        Image.new("RGB", (1800, 1400), (index, 0, 0)).save(images / f"{index}.bmp")
    rows = load(images, base, batch_rows=8)
    rows.inputs(0, dtype=torch.float32, device=torch.device("cpu"))  # libraries are warm after it
    before = resident_bytes()
    with measured_peak() as peak:
        rows.inputs(0, dtype=torch.float32, device=torch.device("cpu"))
    # All at once they would take 80 MB before any is scaled.
    assert peak.num_bytes - before <= rows.decoding_bytes < 60_000_000


def test_an_image_of_too_many_pixels_is_refused_by_its_header(images: Path, base: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(images / "a.png")
    with pytest.raises(InputError, match=r"a.png: 12,000 x 12,000 pixels.*expected at most 89,478,485"):
        load(images, base)


def test_an_image_that_scaling_to_its_shorter_side_makes_huge_is_refused(images: Path, base: Path) -> None:
    Image.new("L", (1, 1_000_000)).save(images / "a.png")
    with pytest.raises(InputError, match=r"a.png: 1 x 1,000,000 pixels, prepared by way of"):
        load(images, base)


def test_an_image_in_a_program_is_not_run(images: Path, base: Path) -> None:
    (images / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"a.png: no image that can be read"):
        load(images, base)


def test_a_pipe_among_images_is_refused(images: Path, base: Path) -> None:
    os.mkfifo(images / "a.png")
    with pytest.raises(InputError, match=r"a.png: expected a regular file, found a named pipe"):
        load(images, base)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": 100_000}, r"size is 100,000; expected at most 1,024"),
        ({"size": {"shortest_edge": 100_000}}, r"size.shortest_edge is 100,000"),
        ({"crop_size": {"height": 9999, "width": 9999}}, r"crop_size.height is 9,999"),
        (
            {"crop_size": {"height": 8, "width": 8}},
            r"the image processor makes \[3, 8, 8\] of an image, the model reads",
        ),
        ({"size": "huge"}, "the image processor refuses it|preprocessor_config.json: "),
        ({"image_mean": [0.5]}, "the image processor refuses it"),
        ({"image_processor_type": "NoSuchProcessor"}, "preprocessor_config.json: "),
        ({"image_processor_type": 3}, "preprocessor_config.json: "),
    ],
)
def test_a_processor_that_makes_no_images_of_the_model_is_refused(
    images: Path, base: Path, settings: dict[str, Any], reason: str
) -> None:
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(images / "a.png")
    path = base / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError, match=reason):
        load(images, base)
