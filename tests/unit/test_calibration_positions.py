"""Rows are no longer than the positions that a model has learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import checkpoints
from architectures import derived, llama
from merging import make_merge
from regstream.data.loading import load_calibration
from regstream.manifest.schema import Calibration
from regstream.models.layered_model import LayeredModel

SHAPE: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 40,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=40, n_positions=20), 20),
        (transformers.BertConfig(**SHAPE, max_position_embeddings=20), 20),
        (transformers.RobertaConfig(**SHAPE, max_position_embeddings=20), 18),
        (transformers.CLIPTextConfig(**SHAPE, max_position_embeddings=20), 20),
    ],
)
def test_as_many_positions_as_the_model_takes(config: Any, expected: int) -> None:
    architecture = derived(config)
    layered = LayeredModel(architecture, config, dtype=torch.float32, device=torch.device("cpu"))
    assert layered.max_positions == expected
    model: Any = getattr(transformers, architecture.model_class)
    whole: nn.Module = (getattr(model, "from_config", None) or model._from_config)(config)
    whole(input_ids=torch.full((1, expected), 5))
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        whole(input_ids=torch.full((1, expected + 1), 5))


def test_rotary_positions_are_not_counted() -> None:
    config = transformers.LlamaConfig(**SHAPE, max_position_embeddings=20)
    assert LayeredModel(derived(config), config, dtype=torch.float32, device=torch.device("cpu")).max_positions is None


@pytest.mark.parametrize(("length", "told"), [(30, True), (19, False)])
def test_longer_rows_are_cut_and_that_is_told(tmp_path: Path, length: int, *, told: bool) -> None:
    path = checkpoints.write_token_rows(tmp_path / "rows.jsonl", [[5] * length, [6] * 3])
    warnings: list[str] = []
    rows = load_calibration(
        Calibration(path=path, field="input_ids"),
        architecture=llama(), config=transformers.GPT2Config(vocab_size=40), base=tmp_path, seed=0, max_positions=20,
        warn=warnings.append,
    )  # fmt: skip
    assert rows.batches[0].lengths == (min(length, 20), 3)
    line = "rows.jsonl: 1 of 2 rows are cut to 20 tokens, the positions that the model has learned; max_length is 2,048"
    assert warnings == ([line] if told else [])


def test_a_merge_with_rows_longer_than_its_positions_is_that_of_the_cut_rows(tmp_path: Path) -> None:
    results = []
    for name, length in (("long", 2000), ("cut", 1024)):
        folder = tmp_path / name
        folder.mkdir()
        merge = make_merge(folder, "gpt2", layers=1, hidden=8, candidates=2)
        for source in folder.glob("*.jsonl"):
            checkpoints.write_token_rows(source, [[5, 6] * (length // 2), [7] * 4])
        results.append(sorted(p.read_bytes() for p in merge.run().glob("*.safetensors")))
    assert results[0] == results[1]
