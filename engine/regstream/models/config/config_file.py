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
    """The config of a checkpoint folder.

    Raises:
        InputError: there is none, it is damaged, or of a model that is no single chain of blocks.
    """
    file = folder / CONFIG
    if not file.exists() and (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{folder}: holds {ADAPTER_CONFIG} and no {CONFIG}: it is an adapter, no model; name it as `adapter`, and"
            " the model that it is put on as `model`"
        )
    config = read_json_object(file, "a checkpoint folder")
    if _is_encoder_decoder(config):
        raise InputError(
            f'{file}: model_type "{config.get("model_type")}" is an encoder-decoder model, and these are not merged:'
            " a decoder's blocks read what the encoder gives beside their own hidden states"
        )
    return config


def _is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    # A config may leave out what is its class's default.
    model_type = str(config.get("model_type"))
    known = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401  its `get` finds nothing
    return bool(config.get("is_encoder_decoder", getattr(known, "is_encoder_decoder", False)))
