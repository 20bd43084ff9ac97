"""Sets of images made from others: corrupted, of some classes only, or several in one. Made once, kept by content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from experiments.corruptions import corrupt
from experiments.identity import content, digest
from pictures import files


class Derived:
    """Makes sets below a folder; a set's name tells what it is made from, and how."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def corrupted(self, source: Path, corruption: str) -> Path:
        """Every image gone bad in one way, each by its own seed."""
        path = self._path("corrupted", corruption, content(source))
        if not path.exists():
            files.write(path, files.table(_corrupted(files.read(source), corruption)))
        return path

    def of_classes(self, source: Path, count: int) -> Path:
        """The images of the first `count` classes."""
        path = self._path("classes", count, content(source))
        if not path.exists():
            table = pq.read_table(source)
            files.write(path, table.filter(pc.less(table["label"], count)))
        return path

    def mixture(self, sources: Sequence[Path], rows: int) -> Path:
        """So many images of all sources together, as many of each, taken evenly."""
        path = self._path("mixture", rows, *map(content, sources))
        if not path.exists():
            shares = [rows // len(sources) + (index < rows % len(sources)) for index in range(len(sources))]
            parts = [_evenly(pq.read_table(source), n) for source, n in zip(sources, shares, strict=True)]
            files.write(path, pa.concat_tables(parts))
        return path

    def _path(self, *how: object) -> Path:
        return self._folder / f"{digest(how)}.parquet"


def _corrupted(pictures: list[tuple[Image.Image, int]], corruption: str) -> Iterator[tuple[Image.Image, int]]:
    for seed, (image, label) in enumerate(pictures):
        yield corrupt(corruption, image, seed), label


def _evenly(table: pa.Table, rows: int) -> pa.Table:
    return table.take([index * table.num_rows // rows for index in range(rows)])
