"""Recognizes files of other formats that are given as a manifest: mergekit's recipes, YAML and JSON."""

import re
import shlex
from pathlib import Path

_KEY = re.compile(r"(?m)^([A-Za-z_]\w*):(?:[ \t]|$)")
_INIT = "write a manifest with `regstream init --base MODEL --candidate NAME=MODEL -o merge.toml`"
_MERGEKIT_KEYS = frozenset({"merge_method", "base_model", "models", "slices", "modules"})


def describe_other_format(text: str, file: str) -> str | None:
    """The format of a text that is not TOML, and a command that writes a manifest; None for an unknown format."""
    keys = set(_KEY.findall(text))
    if keys & _MERGEKIT_KEYS:
        command = shlex.join(["regstream", "init", "--from-mergekit", file, "-o", f"{Path(file).stem}.toml"])
        return f"expected a manifest in TOML, found a recipe of mergekit in YAML; write a manifest with `{command}`"
    if text.lstrip().startswith("{"):
        return f"expected a manifest in TOML, found JSON; {_INIT}"
    if keys or Path(file).suffix.lower() in (".yaml", ".yml"):
        return f"expected a manifest in TOML, found YAML; {_INIT}"
    return None
