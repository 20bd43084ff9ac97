"""Rotary embeddings that grow with the longest row: a row gives the same whatever ran before it."""

from pathlib import Path
from typing import Any

import torch

from regstream.models.batch import Batch
from regstream.models.config.build import build_config
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel

FILE = Path("config.json")
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
}


def test_a_row_does_not_depend_on_a_longer_one_before_it() -> None:
    model = LayeredModel(
        derive_architecture(CONFIG, FILE), build_config(CONFIG, FILE), dtype=torch.float32, device=torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in model.shapes.items()}
    rows = {length: torch.randn(1, length, 16, generator=generator) for length in (24, 40)}

    def run(length: int) -> torch.Tensor:
        with model.bind_parameters({name: weights[name] for name in model.parameters_of_block(0)}):
            return model.run_block(0, rows[length], Batch((length,)))

    alone = run(24)
    run(40)
    assert torch.equal(run(24), alone)
