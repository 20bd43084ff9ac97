"""Whether the rows of a batch change each other: then each is a batch of its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from regstream.models.architecture.architecture import Architecture
from regstream.models.config.model_sizes import text_config

#: Rotary embeddings that depend on the longest row of a batch, once it is longer than those of the first training.
_LENGTH_TYPES = ("dynamic", "longrope")


def reason_to_run_alone(architecture: Architecture, config: PreTrainedConfig, longest: int) -> str | None:
    """Why rows of token ids, of which the longest has so many, run one by one; None where they share batches."""
    if any(stack.call.mixes_rows for stack in architecture.stacks):
        return "padding changes what the model makes of a row"
    for table in _rope_tables(text_config(config)):
        positions = _first_positions(text_config(config), table)
        if table.get("rope_type") in _LENGTH_TYPES and positions is not None and longest > positions:
            kind = table["rope_type"]
            return f"its {kind} rotary embeddings depend on a batch's longest row beyond {positions:,} tokens"
    return None


def _rope_tables(config: Any) -> Iterator[Mapping[str, Any]]:
    table = getattr(config, "rope_parameters", None)
    if isinstance(table, Mapping):
        yield table
        yield from (entry for entry in table.values() if isinstance(entry, Mapping))


def _first_positions(config: Any, table: Mapping[str, Any]) -> int | None:
    key = "original_max_position_embeddings"
    candidates = (table.get(key), getattr(config, key, None), getattr(config, "max_position_embeddings", None))
    return next((value for value in candidates if isinstance(value, int)), None)
