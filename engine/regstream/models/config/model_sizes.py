"""Sizes of a model in its config, including those in a sub-config or left to the config class."""

from typing import Any

from transformers import PreTrainedConfig

from regstream.errors import InputError


def spectrum_shape(config: Any) -> tuple[int, int] | None:
    """The shape (frequencies, times) of the spectra that a model such as Whisper reads; None of another model."""
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        return config.num_mel_bins, 2 * config.max_source_positions
    return None


def vocab_size(config: PreTrainedConfig) -> int:
    """The number of rows of the token embeddings.

    Raises:
        InputError: the config lacks it, or it is invalid.
    """
    return _size(text_config(config), "vocab_size")


def hidden_size(config: PreTrainedConfig) -> int:
    """The width of the hidden states, of a text or an image model.

    Raises:
        InputError: the config lacks it, or it is invalid.
    """
    return _size(text_config(config), "hidden_size")


def text_config(config: PreTrainedConfig) -> Any:
    """The config of a model's text part, which is the config itself for most."""
    try:
        nested = config.get_text_config(decoder=True)
    except Exception:  # raised where there are several text configs, or one that is not a config
        return config
    return nested if isinstance(nested, PreTrainedConfig) else config


def _size(config: Any, key: str) -> int:
    value = getattr(config, key, None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"config.json: {key} is {value}, expected a whole number")
    return value
