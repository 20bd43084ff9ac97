"""Images in folders and tables: which, in which order, prepared how, and what is no image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, CLIPVisionConfig

from architectures import clip_vision
from checkpoints import IMAGE_SIZE, PATCH_SIZE, write_image_processor
from regstream.data.encoded_images import TableImages
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.data.pixels import PixelRows
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

CPU = torch.device("cpu")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_image_processor(folder)
    return folder


def picture(seed: int, *, mode: str = "RGB", size: tuple[int, int] = (50, 40)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def write_folder(folder: Path, count: int = 5) -> Path:
    """Two classes, and files that are no images beside them."""
    for index in range(count):
        path = folder / f"class {index % 2}" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(index)))
    (folder / "notes.txt").write_text("not an image")
    return folder


def load(path: Path, base: Path, *, seed: int = 0, label: str = "label", **settings: Any) -> CalibrationSet:
    config = CLIPVisionConfig(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    calibration = Calibration(path=path, **settings)
    return load_calibration(
        calibration, architecture=clip_vision(), config=config, base=base, seed=seed, warn=lambda _: None, label=label
    )


def pixels_of(rows: CalibrationSet) -> Tensor:
    return torch.cat(
        [rows.inputs(index, dtype=torch.float32, device=CPU)["pixel_values"] for index in range(len(rows.batches))]
    )


def prepared(base: Path, images: list[Image.Image]) -> Tensor:
    load: Any = AutoImageProcessor.from_pretrained  # untyped
    pixels: Tensor = load(base)(images=images, return_tensors="pt")["pixel_values"]
    return pixels


def test_a_table_of_images_alone_has_them_in_a_field(tmp_path: Path, base: Path) -> None:
    pq.write_table(pa.table({"picture": [encoded(picture(0))]}), tmp_path / "rows.parquet")
    assert len(load(tmp_path / "rows.parquet", base, field="picture").batches) == 1
    with pytest.raises(InputError, match=r'images = "picture" names the images of rows of text, .*; remove images'):
        load(tmp_path / "rows.parquet", base, images="picture")


def test_a_folders_images_come_by_class_and_name_as_the_processor_prepares_them(tmp_path: Path, base: Path) -> None:
    rows = load(write_folder(tmp_path / "images"), base, batch_rows=2)
    assert [len(batch.lengths) for batch in rows.batches] == [2, 2, 1]
    assert torch.equal(pixels_of(rows), prepared(base, [picture(index) for index in (0, 2, 4, 1, 3)]))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_image_is_read_in_colour(tmp_path: Path, base: Path, mode: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    image = picture(0, mode=mode, size=(30, 60))
    image.save(folder / "a.tiff")
    with Image.open(folder / "a.tiff") as stored:
        expected = prepared(base, [stored.convert("RGB")])
    assert torch.equal(pixels_of(load(folder, base)), expected)


@pytest.mark.parametrize("nested", [True, False])
def test_a_tables_column_of_images_is_read_group_by_group(tmp_path: Path, base: Path, *, nested: bool) -> None:
    values = [encoded(picture(index)) for index in range(7)]
    column = [{"bytes": value, "path": None} for value in values] if nested else values
    pq.write_table(pa.table({"image": column, "label": list(range(7))}), tmp_path / "rows.parquet", row_group_size=3)
    rows = load(tmp_path / "rows.parquet", base, batch_rows=4)
    assert torch.equal(pixels_of(rows), prepared(base, [picture(index) for index in range(7)]))


@pytest.mark.parametrize("group_rows", [1, 20, 50, 100])
def test_a_tables_rows_are_found_in_any_order(tmp_path: Path, group_rows: int) -> None:
    values = [bytes([index]) for index in range(100)]
    table = pa.table({"image": values, "label": list(range(100, 200))})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=group_rows)
    images = TableImages(tmp_path / "rows.parquet", "image")
    assert len(images) == 100
    for index in [*range(100), *range(0, 100, 7), 99, 0, 49, 50, 50, 3, 2]:
        assert images.encoded(index) == (f"row {index + 1}", values[index])
        assert images.label(index) == 100 + index


def test_a_group_of_rows_is_not_held_whole(tmp_path: Path) -> None:
    values = [np.random.default_rng(index).bytes(100_000) for index in range(300)]
    pages = {"write_batch_size": 4, "data_page_size": 400_000}
    pq.write_table(pa.table({"image": values}), tmp_path / "rows.parquet", **pages)
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups == 1
    before, most = pa.total_allocated_bytes(), 0
    images = TableImages(tmp_path / "rows.parquet", "image")
    for index, value in enumerate(values):
        assert images.encoded(index)[1] == value
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 10_000_000  # of 30 MB


def test_the_digest_is_of_images_preparation_and_batches(tmp_path: Path, base: Path) -> None:
    folder = write_folder(tmp_path / "images")
    same = load(folder, base).digest
    assert load(folder, base).digest == same
    assert load(folder, base, batch_rows=2).digest != same
    assert load(folder, base, rows=3).digest != same
    settings = base / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("0.25", "0.5"))
    assert load(folder, base).digest != same


def test_an_image_that_is_damaged_is_named_at_once(tmp_path: Path, base: Path) -> None:
    folder = write_folder(tmp_path / "images")
    damaged = folder / "class 1" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(InputError, match=r"images, class 1/03.png: not a readable image"):
        load(folder, base)


def test_what_is_not_there_is_told(tmp_path: Path, base: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images"):
        load(tmp_path / "empty", base)
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r'row 1: expected an encoded image in "image", found 1'):
        load(tmp_path / "rows.parquet", base)
    with pytest.raises(InputError, match=r'no column "picture"; there are image'):
        load(tmp_path / "rows.parquet", base, field="picture")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"torn.parquet: "):
        load(tmp_path / "torn.parquet", base)
    with pytest.raises(InputError, match=r"no preprocessor_config.json; without it images cannot be preprocessed"):
        load(write_folder(tmp_path / "images"), tmp_path)


def test_labels_are_the_classes_folders_in_order_or_a_column(tmp_path: Path, base: Path) -> None:
    rows = load(write_folder(tmp_path / "images"), base, batch_rows=2)
    assert isinstance(rows, PixelRows)
    assert [rows.labels(index).tolist() for index in range(3)] == [[0, 0], [0, 1], [1]]
    values = [encoded(picture(index)) for index in range(4)]
    pq.write_table(pa.table({"image": values, "label": [3, 1, 0, 2]}), tmp_path / "rows.parquet", row_group_size=2)
    table = load(tmp_path / "rows.parquet", base)
    assert isinstance(table, PixelRows)
    assert table.labels(0).tolist() == [3, 1, 0, 2]
    pq.write_table(pa.table({"jpg": values, "cls": [1, 0, 2, 3]}), tmp_path / "named.parquet")
    named = load(tmp_path / "named.parquet", base, label="cls", field="jpg")
    assert isinstance(named, PixelRows)
    assert named.labels(0).tolist() == [1, 0, 2, 3]


def test_images_without_a_class_are_told(tmp_path: Path, base: Path) -> None:
    folder = write_folder(tmp_path / "images", count=1)
    (folder / "a.png").write_bytes(encoded(picture(0)))
    pq.write_table(pa.table({"image": [encoded(picture(0))], "label": ["cat"]}), tmp_path / "rows.parquet")
    for path, message in ((folder, "a.png is in no class folder"), (tmp_path / "rows.parquet", "a whole number")):
        rows = load(path, base)
        assert isinstance(rows, PixelRows)
        with pytest.raises(InputError, match=message):
            rows.labels(0)
