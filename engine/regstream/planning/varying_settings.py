"""The settings that are not the same for all parameters: what each step has of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from regstream.manifest.rule_table import Setting
from regstream.planning.parameter_settings import settings_of
from regstream.planning.step import Step


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """What a step has of a setting: its values, in order of their first parameters, and how many have each."""

    step: str
    values: tuple[float, ...]
    num_parameters: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VaryingSetting:
    """A number of the method, or of a candidate its scale or its share: its weight over the mean of all weights."""

    key: str
    candidate: str | None
    steps: tuple[StepValues, ...]  # those in which it decides something

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.key if self.candidate is None else f"{self.key} of {self.candidate}"

    def in_step(self, step: str) -> StepValues | None:
        """What a step has of it; None where it decides nothing."""
        return next((found for found in self.steps if found.step == step), None)

    def record(self) -> dict[str, Any]:
        """A table for JSON."""
        steps = {found.step: {"values": [*found.values], "parameters": [*found.num_parameters]} for found in self.steps}
        return {"key": self.key, "candidate": self.candidate, "steps": steps}


def varying_settings(steps: Sequence[Step], candidates: Sequence[str]) -> Iterator[VaryingSetting]:
    """The settings that some parameters have otherwise than others that they decide, of steps of a merge."""
    found: dict[Setting, dict[str, Counter[float]]] = {}
    known: dict[object, dict[Setting, float | None]] = {}
    with_own = set[Setting]()
    for step in steps:
        for parameter in step.parameters:
            kind = (
                parameter.rule,
                parameter.group is None,
                parameter.method,
                parameter.shares,
                parameter.scales,
                parameter.densities,
            )
            if kind not in known:
                known[kind] = settings_of(parameter, candidates)
            for setting, value in known[kind].items():
                # Without a scale of its own a candidate has the method's.
                number = getattr(parameter.method.options, setting.key) if value is None else value
                with_own |= set() if value is None else {setting}
                found.setdefault(setting, {}).setdefault(step.name, Counter())[number] += 1
    for setting, by_step in found.items():
        if setting in with_own and len({value for values in by_step.values() for value in values}) > 1:
            key = "share" if setting.key == "weight" else setting.key
            listed = (
                StepValues(step=name, values=tuple(values), num_parameters=tuple(values.values()))
                for name, values in by_step.items()
            )
            yield VaryingSetting(key=key, candidate=setting.candidate, steps=tuple(listed))


def settings_rows(varying: Sequence[VaryingSetting], steps: Sequence[Step]) -> Iterator[tuple[list[str], list[str]]]:
    """The rows of a table: names of consecutive blocks with the same settings, and a cell for each setting."""
    cells = {step.name: [_cell(setting.in_step(step.name)) for setting in varying] for step in steps}
    for (_, found), same in groupby(steps, key=lambda step: (step.kind, cells[step.name])):
        if any(found):
            yield [step.name for step in same], found


def _cell(found: StepValues | None) -> str:
    if found is None:
        return ""
    if len(found.values) == 1:
        return f"{found.values[0]:.4g}"
    return ", ".join(f"{v:.4g} ({count})" for v, count in zip(found.values, found.num_parameters, strict=True))
