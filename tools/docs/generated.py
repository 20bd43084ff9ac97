"""The documents with generated parts, and those that are generated whole.

A part is between `<!-- generated NAME -->` and `<!-- end NAME -->`.
"""

import re
from collections.abc import Callable
from pathlib import Path

from docs.commands import commands
from docs.keys import keys_of_architecture, keys_of_manifest
from docs.record_schema import record_schema

ROOT = Path(__file__).parents[2]
_Parts = dict[str, dict[str, Callable[[], str]]]


def documents() -> dict[Path, str]:
    """Each document's path, and its text with all parts generated anew; one that is generated whole may not be there.

    Raises:
        ValueError: a document has not exactly one place for a part.
    """
    manifest = {"keys": keys_of_manifest, "architecture": keys_of_architecture}
    parts = _generate({"manifests/README.md": manifest, "cli/README.md": {"commands": commands}})
    return parts | {ROOT / "engine/regstream/output/regstream.schema.json": record_schema()}


def slow_documents() -> dict[Path, str]:
    """The same for documents that take more than a few seconds; imports the tests' models.

    Raises:
        ValueError: a document has not exactly one place for a part.
    """
    from docs.architectures import architectures
    from docs.recipes import recipes

    return _generate(
        {"manifests/architectures.md": {"architectures": architectures}, "manifests/mergekit.md": {"recipes": recipes}}
    )


def _generate(documents: _Parts) -> dict[Path, str]:
    texts = {}
    for name, parts in documents.items():
        text = (ROOT / name).read_text()
        for part, generate in parts.items():
            text = _replace(name, text, part, generate())
        texts[ROOT / name] = text
    return texts


def _replace(name: str, text: str, part: str, generated: str) -> str:
    start, end = f"<!-- generated {part} -->", f"<!-- end {part} -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f'{name}: expected one part from "{start}" to "{end}", found {len(pattern.findall(text))}')
    return pattern.sub(lambda _: f"{start}\n\n{generated}\n\n{end}", text)
