"""The tables of a manifest while its recipe is translated, with remarks on what differs from the recipe."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from regstream.recipes.names import candidate_name
from regstream.recipes.parameters import Setting, Value
from regstream.recipes.recipe import Input, Reference


@dataclass
class CandidateTable:
    """A [[candidates]] table; `keys` are those beside name, model and adapter."""

    name: str
    reference: Reference
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """A manifest's tables; `base` is a model, `merge` has the further keys of its table."""

    method: str
    base: str | None = None
    merge: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[CandidateTable] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add_candidates(self, inputs: Sequence[Input]) -> list[CandidateTable]:
        """A table for each of some models."""
        for entry in inputs:
            name = candidate_name(entry.reference, [table.name for table in self.candidates])
            self.candidates.append(CandidateTable(name, entry.reference))
        return self.candidates

    def set(self, key: str, setting: Setting, table: CandidateTable | None = None) -> None:
        """Set a key of [merge] or of a candidate, with a rule for each of its filters."""
        for case in setting.cases:
            if case.filter is None:
                (self.merge if table is None else table.keys)[key] = _toml_value(case.value)
                return
            owner = {} if table is None else {"candidate": table.name}
            self.rules.append({"parameters": _glob(case.filter), **owner, key: _toml_value(case.value)})


def _toml_value(value: Value) -> float | list[float]:
    return list(value) if isinstance(value, tuple) else value


def _glob(text: str) -> str:
    """A glob that matches names with a text in them."""
    literal = re.sub(r"([*?[])", r"[\1]", text)
    return f"*{literal}*"
