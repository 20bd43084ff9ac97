"""Tables of pictures as `datasets` writes them: a parquet file with the columns `image` (`bytes`) and `label`."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_GROUP = 100  # rows that are read together


def encoded(image: Image.Image) -> bytes:
    """An image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def table(pictures: Iterable[tuple[Image.Image, int]]) -> pa.Table:
    """Images and their labels as a table."""
    rows = [({"bytes": encoded(image)}, label) for image, label in pictures]
    images, labels = zip(*rows, strict=True)
    return pa.table({"image": list(images), "label": pa.array(labels, pa.int64())})


def read(path: Path) -> list[tuple[Image.Image, int]]:
    """A file's images and labels."""
    found = pq.read_table(path, columns=["image", "label"])
    images = (Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in found["image"].to_pylist())
    return list(zip(images, found["label"].to_pylist(), strict=True))


def write(path: Path, pictures: pa.Table) -> None:
    """Write a table of pictures; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pictures, partial, row_group_size=_GROUP)
    partial.replace(path)
