"""Tokens added to checkpoints, as whoever fine-tunes a model adds them: to the tokenizer, with rows of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer


def add_tokens(
    folder: Path,
    tokens: Sequence[str | AddedToken],
    *,
    seed: int,
    multiple: int | None = None,
    auto: Any = AutoModelForCausalLM,
) -> None:
    """Add tokens to the tokenizer in a folder, and random rows for them to its model, up to a `multiple` of rows."""
    tokenizer = tokenizer_in(folder)
    for token in tokens:
        added = token if isinstance(token, AddedToken) else AddedToken(token, special=True, normalized=False)
        tokenizer.add_tokens([added], special_tokens=added.special)
    tokenizer.save_pretrained(folder)
    model = auto.from_pretrained(folder)
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=multiple, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = module.weight.data[before:]
        rows.copy_(torch.randn(rows.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer in a folder."""
    tokenizer: Any = AutoTokenizer
    return tokenizer.from_pretrained(folder)


def rows_in(folder: Path, auto: Any = AutoModelForCausalLM) -> Mapping[str, torch.Tensor]:
    """The embeddings and the head of a model, float64."""
    model = auto.from_pretrained(folder, dtype=torch.float64)
    modules = {"embeddings": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    return {name: module.weight.detach().clone() for name, module in modules.items()}
