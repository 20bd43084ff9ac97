"""Sizes of images that a model's config tells; configs are known by their attributes, so that no library is needed."""

from typing import Any, TypeGuard

from regstream.errors import InputError

#: Where a config that leaves its size to its class would have the channels.
_CHANNELS = 3


def image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model reads.

    Raises:
        InputError: the config tells no size.
    """
    config = _vision(config)
    channels = getattr(config, "num_channels", _CHANNELS)
    if not _is_size(channels):
        raise InputError(f"config.json: num_channels is {channels}, expected a whole number")
    return (channels, *_pair(config, "image_size"))


def patches_and_class(config: Any, *, class_tokens: int = 1) -> int:
    """Tokens of an image that is cut into patches: those, and the ones that stand for the class.

    Raises:
        InputError: the config tells no sizes.
    """
    _, height, width = image_shape(config)
    rows, columns = _pair(_vision(config), "patch_size")
    return (height // rows) * (width // columns) + class_tokens


def _vision(config: Any) -> Any:
    """The config of what reads images, where it is inside another."""
    return config if hasattr(config, "image_size") else getattr(config, "vision_config", None) or config


def _pair(config: Any, key: str) -> tuple[int, int]:
    """A size that is told once for both directions, or for each: of rows, then of columns."""
    found: Any = getattr(config, key, None)
    pair = [*found] if isinstance(found, list | tuple) else [found]
    height, width = pair * 2 if len(pair) == 1 else pair if len(pair) == 2 else (None, None)
    if not (_is_size(height) and _is_size(width)):
        raise InputError(f"config.json: {key} is {found}, expected a whole number, or one for each direction")
    return height, width


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
