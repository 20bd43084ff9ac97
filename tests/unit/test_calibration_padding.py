"""Padding in rows of token ids never enters: an attention mask beside them says what it is."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from architectures import llama
from regstream.data.loading import CalibrationSet, load_calibration
from regstream.errors import InputError
from regstream.manifest.schema import Calibration

PADDED = {"input_ids": [[5, 6, 7, 0], [0, 0, 8, 9]], "attention_mask": [[1, 1, 1, 0], [0, 0, 1, 1]]}


def load(path: Path, max_length: int = 8) -> CalibrationSet:
    calibration = Calibration(path=path, field="input_ids", max_length=max_length)
    config = LlamaConfig(vocab_size=16)
    return load_calibration(calibration, architecture=llama(), config=config, base=path, seed=0, warn=lambda _: None)


def write(path: Path, columns: dict[str, Any]) -> Path:
    match path.suffix:
        case ".jsonl":
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pq.write_table(pa.table(columns), path)
        case _:
            save_file({name: torch.tensor(rows) for name, rows in columns.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".safetensors"])
def test_positions_that_the_mask_leaves_out_are_no_tokens(tmp_path: Path, suffix: str) -> None:
    expected = load(write(tmp_path / "expected.jsonl", {"input_ids": [[5, 6, 7], [8, 9]]}))
    path = write(tmp_path / f"rows{suffix}", PADDED)
    assert load(path).digest == expected.digest
    assert load(path, max_length=2).batches[0].lengths == (2, 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".safetensors"])
def test_a_mask_of_other_values_is_refused(tmp_path: Path, suffix: str) -> None:
    rows = write(tmp_path / f"rows{suffix}", PADDED | {"attention_mask": [[1, 1, 2, 0], [1, 1, 1, 1]]})
    with pytest.raises(InputError, match="attention_mask"):
        load(rows)
