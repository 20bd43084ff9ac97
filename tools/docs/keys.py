"""The manifest's keys as tables in Markdown, from the schema."""

import re

from regstream.manifest.keys import Key, key_of, keys_of, tables

_ARCHITECTURE = "[architecture]"
_CALIBRATION = "[candidates.calibration]"
_EVALUATION = "[candidates.evaluation]"


def keys_of_manifest() -> str:
    """Every table but `[architecture]`, each with its keys."""
    return "\n\n".join(_section(header) for header, _, _ in tables() if header != _ARCHITECTURE)


def keys_of_architecture() -> str:
    """The keys of `[architecture]`."""
    return _section(_ARCHITECTURE)


def _section(header: str) -> str:
    described = {name: (key_of(name, field), list(keys_of(table))) for name, field, table in tables()}
    table, keys = described[header]
    if header == _EVALUATION:
        shared = {key.name for key in described[_CALIBRATION][1]}
        keys = [key for key in keys if key.name not in shared]
    lines = [f"### `{header}`", "", f"{_sentence(table)}"]
    if keys:
        lines += ["", "| key | value | default | meaning |", "|---|---|---|---|", *map(_row, keys)]
    return "\n".join(lines)


def _sentence(table: Key) -> str:
    text = f"{table.meaning[0].upper()}{table.meaning[1:]}"
    return f"{text}; default: {table.default}." if table.default else f"{text}."


def _row(key: Key) -> str:
    default = "required" if key.is_required else f"`{key.value}`" if key.default == key.value != "" else key.default
    choices = " \\| ".join(f'`"{choice}"`' for choice in key.choices)
    expected = choices or cell(key.expected + ", or a list of them over the blocks" * key.varies)
    return f"| `{key.name}` | {expected} | {cell(default)} | {cell(key.meaning)} |"


def cell(text: str) -> str:
    """Text of a cell, where a bar would end it and an asterisk set it in italics."""
    return text if text.startswith("`") else re.sub(r"[\\|*]", r"\\\g<0>", text)
