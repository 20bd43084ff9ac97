"""The table of mergekit's recipes: what each becomes, and how far the result is from mergekit's own.

`tests/recipes` holds the recipes, of the same form as mergekit's examples, and the measurement.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.keys import cell
from mergekit_runs import (
    MERGEKIT,
    PARTIAL,
    compare,
    convertible,
    outcome,
    recipe_names,
    run_mergekit,
    write_models,
)

_DOCUMENT = Path(__file__).parents[2] / "manifests/mergekit.md"
_METHOD = re.compile(r'(?m)^method = "(.*)"$')


def recipes() -> str:
    """A row for each recipe; differences are measured where mergekit is installed, else those that are there stay."""
    bounds = _measured() if MERGEKIT.is_dir() else {}
    written = rows_of_table()
    lines = ["| recipe | becomes, or why it is refused | largest difference |", "|---|---|---|"]
    for name in recipe_names():
        old = written[name].rpartition("| ")[2].removesuffix(" |") if name in written else ""
        lines.append(f"{row_of(name)} {bounds.get(name, old)} |")
    return "\n".join(lines)


def row_of(name: str) -> str:
    """A recipe's row of the table, without the last cell."""
    text, line = outcome(name)
    if name == PARTIAL:
        line = "layer_range: found [0, 2] of a model of 4 blocks; a merge keeps every block"
    if text is None or name == PARTIAL:
        problem = str(line).removeprefix(f"{name}.yml: ")
        return f"| `{name}` | refused: {cell(problem)} |"
    found = _METHOD.search(text)
    assert found is not None
    return f"| `{name}` | `{found[1]}`{_keys(text)} |"


def rows_of_table() -> dict[str, str]:
    """The rows that the document has, by recipe."""
    _, _, text = _DOCUMENT.read_text().partition("<!-- generated recipes -->")
    return {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}


def _keys(text: str) -> str:
    """The settings of a manifest beside its models."""
    plain = ("method", "base", "output", "name", "model", "adapter", "dtype", "parameters", "candidate")
    keys = dict.fromkeys(key for key in re.findall(r"(?m)^([a-z_]+) = ", text) if key not in plain)
    gradients = ["gradients"] if re.search(r"(?m)^[a-z]+ = \[", text) else []
    filters = ["`[[rules]]`"] if "[[rules]]" in text else []
    listed = ", ".join([*(f"`{key}`" for key in keys), *gradients, *filters])
    return f" with {listed}" if listed else ""


def _measured() -> dict[str, str]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        run_mergekit(folder, convertible())
        return {name: compare(folder, name).bound for name in convertible()}
