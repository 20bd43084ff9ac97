"""Rows of vocabulary that are read in another order, and from other checkpoints where a file lacks them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regstream.checkpoint.header import read_header
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.row_map import LACKING, MeanRow, RowMap, RowSource

NAME = "rows"


def reader_of(folder: Path, rows: torch.Tensor) -> TensorReader:
    folder.mkdir()
    save_file({"before": torch.ones(3), NAME: rows}, folder / "model.safetensors")
    return TensorReader(folder.name, read_header(folder / "model.safetensors"))


def presented(reader: TensorReader, rows: RowMap) -> TensorReader:
    spec = reader.tensors[NAME]
    tensors = {NAME: replace(spec, shape=rows.shape, rows=rows)}
    return TensorReader(reader.label, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 4), (9,), (1, 9)])
def test_every_range_has_the_rows_of_the_map(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two, three = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    readers = [reader_of(tmp_path / name, rows) for name, rows in (("one", one), ("two", two), ("three", three))]
    own_V = np.array([0, 1, 2, 8, LACKING, 4, LACKING, 3, 5, 6, LACKING])
    flat = [rows.view(9, -1).float() for rows in (one, two, three)]
    plain = [reader.copy([NAME]) for reader in readers]
    if shape[0] == 1:  # the file's row of values is one for each token
        plain = [
            TensorReader(r.label, {NAME: type(s)(**{**vars(s), "shape": (9,)})})
            for r in plain
            for s in [r.tensors[NAME]]
        ]
    sources = [
        RowSource(plain[1], NAME, {4: 7, 6: 2}, share=0.5),
        RowSource(plain[2], NAME, {6: 0}, share=1.5),
    ]
    rows = RowMap(shape, own_V, sources, MeanRow(plain[0], NAME))
    expected = torch.stack([flat[0][index] if index != LACKING else torch.zeros_like(flat[0][0]) for index in own_V])
    expected[4] = flat[1][7]
    expected[6] = (0.5 * flat[1][2] + 1.5 * flat[2][0]) / 2
    expected[10] = flat[0].mean(dim=0)
    reader, values = presented(readers[0], rows), expected.reshape(-1)
    whole = torch.empty(rows.shape)
    reader.read({NAME: whole})
    torch.testing.assert_close(whole.reshape(-1), values)
    for start in range(len(values)):
        for stop in range(start + 1, len(values) + 1):
            part = torch.empty(stop - start)
            reader.read_range(NAME, start, part)
            torch.testing.assert_close(part, values[start:stop])


def test_rows_of_the_file_are_read_to_the_last_bit(tmp_path: Path) -> None:
    stored = torch.randn(64, 8).to(torch.bfloat16)
    reader = reader_of(tmp_path / "one", stored)
    order = np.random.default_rng(0).permutation(64)
    shown = presented(reader, RowMap(stored.shape, order, [], MeanRow(reader, NAME)))
    found = torch.empty(64, 8, dtype=torch.bfloat16)
    shown.read({NAME: found})
    assert torch.equal(found, stored[torch.from_numpy(order)])
