"""Settings of a config that make transformers download and run code: refused or removed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.errors import InputError

#: Implementations that transformers computes with torch alone.
_BUILT_IN = {
    "attn_implementation": ("eager", "sdpa"),
    "experts_implementation": ("eager", "grouped_mm", "batched_mm"),
}
#: Implementations that need a package, without which transformers downloads kernels from the hub. The engine uses the
#: default implementation instead, which computes the same.
_NEED_PACKAGES = {
    "attn_implementation": (
        "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention", "paged|eager", "paged|sdpa",
    ),
    "experts_implementation": (),
}  # fmt: skip
_KERNEL_SWITCHES = ("use_kernels", "kernel_config")
#: Settings that locate or allow remote code.
_REMOTE_CODE = ("auto_map", "trust_remote_code")


def refuse_remote_code(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config if it or a sub-config asks for kernels of the hub.

    Raises:
        InputError: it does, or names an implementation that neither torch nor transformers contains.
    """
    for path, setting, value in _implementations(config):
        if setting in _KERNEL_SWITCHES:
            if value:
                raise InputError(f"{file}: {'.'.join(path)} asks for kernels of the hub, which are code; remove it")
            continue
        for name in _names(value):
            if name not in (*_BUILT_IN[setting], *_NEED_PACKAGES[setting]):
                raise InputError(
                    f'{file}: {".".join(path)} is "{name}"; expected {" or ".join(_BUILT_IN[setting])}, which are'
                    " built in: code of the hub is not run"
                )


def unused_implementations(config: Mapping[str, Any]) -> list[str]:
    """The settings of a config that ask for implementations which need a package, each as `key = value`."""
    return [
        f"{'.'.join(path)} = {', '.join(_names(value))}"
        for path, setting, value in _implementations(config)
        if any(name in _NEED_PACKAGES.get(setting, ()) for name in _names(value))
    ]


def without_implementations(content: Any) -> Any:
    """Remove from a config and its sub-configs what names code, and implementations that need a package.

    Built-in implementations stay; a table of implementations is removed.
    """
    if isinstance(content, Mapping):
        return {
            key: without_implementations(value)
            for key, value in content.items()
            if key not in _REMOTE_CODE and _is_allowed(str(key), value)
        }
    return [without_implementations(value) for value in content] if isinstance(content, list) else content


def _is_allowed(key: str, value: object) -> bool:
    setting = _setting(key)
    return setting is None or (isinstance(value, str) and value in _BUILT_IN.get(setting, ()))


def _setting(key: str) -> str | None:
    """The setting that a key stands for, with or without a leading underscore; None for any other key."""
    name = key.lstrip("_").removesuffix("_internal")
    return name if name in (*_BUILT_IN, *_KERNEL_SWITCHES) else None


def _implementations(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """The path, name and value of each such setting."""
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
    """The implementations in a value, which is one name or a table of one for each sub-config."""
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from _names(entry)
    elif value is not None:
        yield str(value)
