"""A checkpoint folder's config.json."""

from pathlib import Path
from typing import Any

from regstream.errors import InputError
from regstream.storage.json_file import read_json_object

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a checkpoint folder.

    Raises:
        InputError: it is missing or damaged.
    """
    file = folder / CONFIG
    if not file.exists() and (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{folder}: holds {ADAPTER_CONFIG} and no {CONFIG}: it is an adapter, no model; in its [[candidates]] table"
            f' write adapter = "{folder}" in place of model; the base, or model, is what it was trained on'
        )
    return read_json_object(file, "a checkpoint folder")
