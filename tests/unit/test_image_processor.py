"""Images are decoded one at a time, within a bound; processors and images that would fill the memory are refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import AutoImageProcessor, CLIPVisionConfig
from transformers.image_utils import load_image

from architectures import clip_vision
from checkpoints import IMAGE_SIZE, PATCH_SIZE, write_image_processor
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.device.memory import measured_peak
from regstream.device.process_memory import resident_bytes
from regstream.errors import InputError
from regstream.manifest.schema import Calibration


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
    return load_calibration(
        calibration, architecture=clip_vision(), config=config, base=base, seed=0, warn=lambda _: None
    )


@pytest.mark.slow
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
    with pytest.raises(InputError, match=r"a.png: 1 x 1,000,000 pixels, up to .* resized; expected"):
        load(images, base)


def test_an_image_in_a_program_is_not_run(images: Path, base: Path) -> None:
    (images / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"a.png: not a readable image"):
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
            r"the image processor produces \[3, 8, 8\], the model reads",
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


@pytest.mark.parametrize("settings", [{"image_std": [0, 0, 0]}, {"image_mean": [float("nan")] * 3}])
def test_a_processor_that_makes_nan_is_refused(images: Path, base: Path, settings: dict[str, Any]) -> None:
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "red").save(images / "a.png")
    path = base / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError, match=r"preprocessor_config.json: .*NaN or infinite"):
        load(images, base)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_transformers_turns_them(images: Path, base: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = np.arange(IMAGE_SIZE * (IMAGE_SIZE + 8) * 3).reshape(IMAGE_SIZE, IMAGE_SIZE + 8, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(images / "a.png", exif=exif)
    found = load(images, base).inputs(0, dtype=torch.float32, device=torch.device("cpu"))["pixel_values"]
    processor: Any = AutoImageProcessor.from_pretrained
    expected = processor(base)(images=[load_image(str(images / "a.png"))], return_tensors="pt")["pixel_values"]
    assert torch.equal(found, expected)


def test_damaged_exif_data_says_nothing(images: Path, base: Path) -> None:
    Image.new("RGB", (30, 30), "red").save(images / "a.jpg", exif=b"Exif\0\0garbage" * 10)
    assert len(load(images, base).batches) == 1


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((30, 30), 4000, np.uint16), "values from 4000 to 4000; expected 8 bits"),
        (np.full((30, 30), 0.5, np.float32), "values from 0.5 to 0.5"),
        (np.full((30, 30), -1, np.int32), "values from -1 to -1"),
    ],
)
def test_wide_values_that_would_be_cut_off_are_refused(images: Path, base: Path, pixels: Any, reason: str) -> None:
    Image.fromarray(pixels).save(images / "a.tiff")
    with pytest.raises(InputError, match=reason):
        load(images, base)


def test_wide_values_of_8_bits_are_read(images: Path, base: Path) -> None:
    Image.fromarray(np.full((30, 30), 200, np.uint16)).save(images / "a.png")
    Image.new("L", (30, 30), 200).save(images / "b.png")
    one, other = load(images, base).inputs(0, dtype=torch.float32, device=torch.device("cpu"))["pixel_values"]
    assert torch.equal(one, other)


@pytest.mark.parametrize(("content", "found"), [(b"", "found an empty file"), (b"<svg/>", "found 6 bytes")])
def test_what_is_no_image_is_named(images: Path, base: Path, content: bytes, found: str) -> None:
    (images / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=f"a.png: not a readable image: expected one of AVIF, .*{found}"):
        load(images, base)


def test_what_macos_keeps_beside_files_is_no_image(images: Path, base: Path) -> None:
    Image.new("RGB", (30, 30), "red").save(images / "a.png")
    (images / "._a.png").write_bytes(b"\0\5\x16\7")
    assert load(images, base).batches[0].shape[0] == 1
