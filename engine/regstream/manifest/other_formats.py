"""Recognizes files of other formats that are given as a manifest: mergekit's configurations, YAML and JSON."""

import re
import shlex
from pathlib import Path

_KEY = re.compile(r"(?m)^([A-Za-z_]\w*):(?:[ \t]|$)")
_BASE = re.compile(r"""(?m)^[ \t]*base_model:[ \t]*["']?([^"'#\s]+)""")
_MODEL = re.compile(r"""(?m)^[ \t]*-?[ \t]*model:[ \t]*["']?([^"'#\s]+)""")
_MERGEKIT_KEYS = frozenset({"merge_method", "base_model", "models", "slices", "modules"})


def describe_other_format(text: str, file: str) -> str | None:
    """The format of a text that is not TOML, and a command that writes a manifest; None for an unknown format."""
    keys = set(_KEY.findall(text))
    if keys & _MERGEKIT_KEYS:
        return f"expected a manifest in TOML, found a mergekit configuration in YAML; {_init_command(text)}"
    if text.lstrip().startswith("{"):
        return f"expected a manifest in TOML, found JSON; {_init_command('')}"
    if keys or Path(file).suffix.lower() in (".yaml", ".yml"):
        return f"expected a manifest in TOML, found YAML; {_init_command('')}"
    return None


def _init_command(text: str) -> str:
    base = _BASE.search(text)
    models = [model for model in dict.fromkeys(_MODEL.findall(text)) if base is None or model != base[1]]
    words = ["regstream", "init", "--base", base[1] if base else "MODEL"]
    for model in models or ["MODEL"]:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.") if models else "NAME"
        words += ["--candidate", f"{name}={model}"]
    return f"write a manifest with `{shlex.join([*words, '-o', 'merge.toml'])}`"
