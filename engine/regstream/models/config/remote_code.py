"""Settings of a config by which transformers would fetch code and run it: refused, or left to the engine's choice."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError

#: What transformers computes itself, with torch alone.
_BUILT_IN = {
    "attn_implementation": ("eager", "sdpa"),
    "experts_implementation": ("eager", "grouped_mm", "batched_mm"),
}
#: Known names that need a package of their own, in whose absence transformers turns to the hub's kernels. Where one is
#: asked for, the model runs with its class's default, which computes the same.
_OF_PACKAGES = {
    "attn_implementation": (
        "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention", "paged|eager", "paged|sdpa",
    ),
    "experts_implementation": (),
}  # fmt: skip
_KERNEL_SWITCHES = ("use_kernels", "kernel_config")
#: Where remote code would be found, or is allowed.
_REMOTE_CODE = ("auto_map", "trust_remote_code")


def refuse_remote_code(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config, sub-configs and all, that asks for kernels of the hub.

    Raises:
        InputError: it does, or names an implementation that is not built into torch and transformers.
    """
    for path, setting, value in _implementations(config):
        if setting in _KERNEL_SWITCHES:
            if value:
                raise InputError(f"{file}: {'.'.join(path)} asks for kernels of the hub, which are code; remove it")
            continue
        for name in _names(value):
            if name not in (*_BUILT_IN[setting], *_OF_PACKAGES[setting]):
                raise InputError(
                    f'{file}: {".".join(path)} is "{name}"; expected {" or ".join(_BUILT_IN[setting])}, which are'
                    " built in: code of the hub is not run"
                )


def unused_implementations(config: Mapping[str, Any]) -> list[str]:
    """Where a config asks for implementations that need packages of their own, as `key = value`."""
    return [
        f"{'.'.join(path)} = {', '.join(_names(value))}"
        for path, setting, value in _implementations(config)
        if any(name in _OF_PACKAGES.get(setting, ()) for name in _names(value))
    ]


def without_implementations(content: Any) -> Any:
    """A config's content without what names code, sub-configs and all; choices that are built in stay.

    An implementation that needs a package of its own is left out, as is a table of them.
    """
    if isinstance(content, Mapping):
        return {
            key: without_implementations(value)
            for key, value in content.items()
            if key not in _REMOTE_CODE and _is_kept(str(key), value)
        }
    return [without_implementations(value) for value in content] if isinstance(content, list) else content


def _is_kept(key: str, value: object) -> bool:
    setting = _setting(key)
    return setting is None or (isinstance(value, str) and value in _BUILT_IN.get(setting, ()))


def _setting(key: str) -> str | None:
    """Which of the settings a key is, with or without the underscore that marks it as private."""
    name = key.lstrip("_").removesuffix("_internal")
    return name if name in (*_BUILT_IN, *_KERNEL_SWITCHES) else None


def _implementations(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Where such settings stand, which they are, and their values."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if (setting := _setting(str(key))) is not None:
                yield (*path, str(key)), setting, value
            else:
                yield from _implementations(value, (*path, str(key)))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _implementations(value, (*path, str(index)))


def _names(value: Any) -> Iterator[str]:
    """The implementations that a value names: one, or one for each sub-config."""
    if isinstance(value, Mapping):
        for named in value.values():
            yield from _names(named)
    elif value is not None:
        yield str(value)
