"""Names of candidates, from what a recipe calls their models."""

import re
from collections.abc import Collection

from regstream.manifest.consistency import PART_USES
from regstream.manifest.value_types import UNION
from regstream.recipes.recipe import Reference

_OTHERS = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_CHARS = 90


def candidate_name(reference: Reference, taken: Collection[str]) -> str:
    """The last part of a model's or its adapter's path or hub id; with a number where it is taken, ignoring case."""
    path = (reference.adapter or reference.model).rstrip("/").rpartition("/")[2].partition("@")[0]
    name = _OTHERS.sub("-", path).strip("-._")[:_MAX_CHARS] or "model"
    used = {other.casefold() for other in (*taken, *PART_USES, UNION)}
    numbered = (name if count == 1 else f"{name}-{count}" for count in range(1, len(used) + 2))
    return next(found for found in numbered if found.casefold() not in used)
