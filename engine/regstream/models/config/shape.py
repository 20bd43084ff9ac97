"""Sizes that a config tells, also where it keeps them in a sub-config or leaves them to its class."""

from typing import Any

from transformers import PreTrainedConfig

from regstream.errors import InputError


def vocabulary(config: PreTrainedConfig) -> int:
    """The rows of the embedding of tokens.

    Raises:
        InputError: it tells none.
    """
    return _size(_text_config(config), "vocab_size")


def hidden_size(config: PreTrainedConfig) -> int:
    """The features of the hidden states of a text model, or of an image model.

    Raises:
        InputError: it tells none.
    """
    return _size(_text_config(config), "hidden_size")


def _text_config(config: PreTrainedConfig) -> Any:
    try:
        found = config.get_text_config(decoder=True)
    except Exception:  # several of them, or none that is a config: what its class makes of it
        return config
    return found if isinstance(found, PreTrainedConfig) else config


def _size(config: Any, key: str) -> int:
    found = getattr(config, key, None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InputError(f"config.json: {key} is {found}, expected a whole number")
    return found
