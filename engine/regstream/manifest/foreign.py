"""Configurations of other merging tools, given as a manifest."""

import re
import shlex
from pathlib import Path

_KEY = re.compile(r"(?m)^([A-Za-z_]\w*):(?:[ \t]|$)")
_BASE = re.compile(r"""(?m)^[ \t]*base_model:[ \t]*["']?([^"'#\s]+)""")
_MODEL = re.compile(r"""(?m)^[ \t]*-?[ \t]*model:[ \t]*["']?([^"'#\s]+)""")
_MERGEKIT = frozenset({"merge_method", "base_model", "models", "slices", "modules"})


def foreign_manifest(text: str, file: str) -> str | None:
    """What a text that is not TOML is, and what to do; None if its format is unknown."""
    keys = set(_KEY.findall(text))
    if keys & _MERGEKIT:
        return f"a configuration of mergekit, in YAML, where a manifest in TOML is expected; {_advice(text)}"
    if text.lstrip().startswith("{"):
        return f"JSON, where a manifest in TOML is expected; {_advice('')}"
    if keys or Path(file).suffix.lower() in (".yaml", ".yml"):
        return f"YAML, where a manifest in TOML is expected; {_advice('')}"
    return None


def _advice(text: str) -> str:
    base = _BASE.search(text)
    models = [model for model in dict.fromkeys(_MODEL.findall(text)) if base is None or model != base[1]]
    words = ["regstream", "init", "--base", base[1] if base else "MODEL"]
    for model in models or ["MODEL"]:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.") if models else "NAME"
        words += ["--candidate", f"{name}={model}"]
    return f"`{shlex.join([*words, '-o', 'merge.toml'])}` writes one"
