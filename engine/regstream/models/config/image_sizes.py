"""Image sizes in a model's config, read by attribute so that neither torch nor transformers is imported."""

from typing import Any, TypeGuard

from regstream.errors import InputError

#: The default of config classes that leave out `num_channels`.
_CHANNELS = 3


def image_shape(config: Any) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images that a model reads.

    Raises:
        InputError: the config lacks a size, or one is invalid.
    """
    config = _vision_config(config)
    channels = getattr(config, "num_channels", _CHANNELS)
    if not _is_size(channels):
        raise InputError(f"config.json: num_channels is {channels}, expected a whole number")
    return (channels, *_size_pair(config, "image_size"))


def num_image_tokens(config: Any, *, class_tokens: int = 1) -> int:
    """Tokens of an image: its patches plus the class tokens.

    Raises:
        InputError: the config lacks a size, or one is invalid.
    """
    _, height, width = image_shape(config)
    patch_height, patch_width = _size_pair(_vision_config(config), "patch_size")
    return (height // patch_height) * (width // patch_width) + class_tokens


def _vision_config(config: Any) -> Any:
    """Of a model with several configs, that of what reads images: a tower, or an encoder."""
    parts = (config, *(getattr(config, key, None) for key in ("vision_config", "encoder")))
    return next((part for part in parts if hasattr(part, "image_size")), config)


def _size_pair(config: Any, key: str) -> tuple[int, int]:
    """(height, width) of a size that the config gives as one number or as two."""
    value: Any = getattr(config, key, None)
    pair = [*value] if isinstance(value, list | tuple) else [value]
    height, width = pair * 2 if len(pair) == 1 else pair if len(pair) == 2 else (None, None)
    if not (_is_size(height) and _is_size(width)):
        raise InputError(f"config.json: {key} is {value}, expected a whole number, or one for each direction")
    return height, width


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
