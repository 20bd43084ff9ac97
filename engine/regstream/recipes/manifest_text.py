"""The text of a manifest made from a recipe: only what the recipe says, with remarks above it."""

from collections.abc import Callable, Iterator, Mapping
from textwrap import wrap
from typing import Any, Final

from regstream.manifest.keys import toml
from regstream.manifest.value_types import is_template_file
from regstream.recipes.draft import Draft

_WIDTH: Final = 120


def manifest_text(draft: Draft, source: str, rebase: Callable[[str], str]) -> str:
    """The text; `source` is the recipe's name, `rebase` gives a path or hub id as the manifest has it.

    Raises:
        ValueError: a path cannot be written.
    """
    lead = f"From the recipe {source} of mergekit. `regstream plan` shows what the merge takes, `regstream run` merges."
    lines = [*_comment(lead, "# "), *(line for remark in draft.remarks for line in _comment(remark, "# - "))]
    merge, template = dict(draft.merge), draft.merge.get("chat_template")
    if template is not None and is_template_file(template):
        merge["chat_template"] = rebase(template)
    base = {} if draft.base is None else {"base": rebase(draft.base)}
    sections = [lines, _table("[merge]", {"method": draft.method, **base, "output": "merged", **merge})]
    sections += [_table("[[rules]]", rule) for rule in draft.rules]
    for table in draft.candidates:
        reference = table.reference
        adapter = {} if reference.adapter is None else {"adapter": rebase(reference.adapter)}
        named = {"name": table.name, "model": rebase(reference.model), **adapter}
        sections.append(_table("[[candidates]]", {**named, **table.keys}))
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    text.encode()
    return text


def _table(header: str, keys: Mapping[str, Any]) -> list[str]:
    return [header, *(f"{key} = {toml(value)}" for key, value in keys.items() if value is not None)]


def _comment(text: str, mark: str) -> Iterator[str]:
    printable = "".join(c if c.isprintable() else "?" for c in text)
    yield from wrap(printable, _WIDTH, initial_indent=mark, subsequent_indent="# " + " " * (len(mark) - 2))
