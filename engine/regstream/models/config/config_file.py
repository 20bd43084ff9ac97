"""A checkpoint folder's config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from regstream.errors import InputError
from regstream.storage.json_file import read_json_object

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a checkpoint folder.

    Raises:
        InputError: it is missing or damaged, or describes an encoder-decoder model.
    """
    file = folder / CONFIG
    if not file.exists() and (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{folder}: holds {ADAPTER_CONFIG} and no {CONFIG}: it is an adapter, no model; name it as `adapter`, and"
            " the model it was trained on as `model`"
        )
    config = read_json_object(file, "a checkpoint folder")
    if _is_encoder_decoder(config):
        raise InputError(
            f'{file}: model_type "{config.get("model_type")}" is an encoder-decoder model, and these are not merged:'
            " a decoder's blocks read the encoder's output besides their own hidden states"
        )
    return config


def _is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    # A config may omit a value that is its class's default.
    model_type = str(config.get("model_type"))
    config_class = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401  its `get` finds nothing
    return bool(config.get("is_encoder_decoder", getattr(config_class, "is_encoder_decoder", False)))
