"""The settings of each parameter: its method's numbers, and the candidates' weights and scales, at its block."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from regstream.errors import ManifestError
from regstream.manifest.rule_table import Setting
from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest
from regstream.manifest.shares import shares
from regstream.methods.by_block import ByBlock, numbers_by_block, position_of, value_at
from regstream.methods.method import Method, MethodOptions
from regstream.models.architecture.architecture import Architecture
from regstream.planning.step import PlannedParameter, Step


class ParameterSettings(NamedTuple):
    """What one parameter is merged with."""

    method: Method
    shares: tuple[float, ...]
    scales: tuple[float | None, ...]
    densities: tuple[float | None, ...]


class SettingsResolver:
    """Of each setting the first rule that gives it, else the manifest's; of a list, the value at the parameter's block.

    Parameters with the same numbers have the same method; those with the manifest's own, `method` itself.
    """

    def __init__(self, manifest: Manifest, method: Method, architecture: Architecture, num_blocks: int) -> None:
        self._manifest, self._architecture, self._num_blocks = manifest, architecture, num_blocks
        self._kind, self._numbers = type(method), sorted(numbers_by_block(method.Options))
        self._own_options = method.own_options
        self._methods = {_key(method.options): method}
        self._shares: dict[tuple[float, ...], tuple[float, ...]] = {}

    def of(self, name: str) -> ParameterSettings:
        """Those of the parameter of a name."""
        candidates, options = self._manifest.candidates, self._manifest.merge.options
        block = self._architecture.block_of(name)
        position = position_of(block, self._num_blocks)

        def value(setting: Setting, otherwise: ByBlock | None) -> float | None:
            rule = match_rule(self._manifest.rules, name, block, self._num_blocks, setting)
            found: Any = otherwise if rule is None else rule.settings[setting]
            return None if found is None else value_at(found, position)

        given = {key: getattr(options, key) for key in options.model_fields_set}
        numbers = {key: value(Setting(key), given.get(key)) for key in self._numbers}
        weights = tuple(value(Setting("weight", c.name), c.weight) or 0.0 for c in candidates)
        own = {
            key: tuple(value(Setting(key, c.name), getattr(c, key)) for c in candidates) for key in self._own_options
        }
        none = (None,) * len(candidates)
        if weights not in self._shares:
            self._shares[weights] = shares(weights)
        return ParameterSettings(
            method=self._method(given | {key: number for key, number in numbers.items() if number is not None}),
            shares=self._shares[weights],
            scales=own.get("scale", none),
            densities=own.get("density", none),
        )

    def _method(self, given: dict[str, Any]) -> Method:
        options = self._kind.Options.model_validate(given)
        return self._methods.setdefault(_key(options), self._kind(options))


def _key(options: MethodOptions) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(options.model_dump().items()))


def settings_of(parameter: PlannedParameter, candidates: Sequence[str]) -> dict[Setting, float | None]:
    """The settings that decide what a parameter becomes; a candidate's scale is None where it has none of its own."""
    found: dict[Setting, float | None] = {}
    if parameter.group is not None or parameter.rule == "combine":
        unused = {*parameter.method.unused_options()}
        own = {"scale": parameter.scales, "density": parameter.densities}
        own = {key: own[key] for key in parameter.method.own_options}
        unused |= {key for key, values in own.items() if None not in values}  # every candidate has its own
        for key in sorted(numbers_by_block(parameter.method.Options) - unused):
            found[Setting(key)] = getattr(parameter.method.options, key)
        for key, values in own.items():
            found |= {Setting(key, name): value for name, value in zip(candidates, values, strict=True)}
    is_weighted = parameter.method.reads_weights if parameter.rule == "combine" else True
    if is_weighted and parameter.rule not in ("base", "candidate"):
        found |= {Setting("weight", name): share for name, share in zip(candidates, parameter.shares, strict=True)}
    return found


def check_settings(made: Iterable[Step], candidates: Sequence[str]) -> tuple[Step, ...]:
    """The steps, whose settings can be merged with.

    Raises:
        ManifestError: all weights of a parameter are 0, or what is solved for together has several settings.
    """
    for step in (steps := tuple(made)):
        without = [p.name for p in step.parameters if p.rule not in ("base", "candidate") and not any(p.shares)]
        if without:
            others = f" and of {len(without) - 1:,} others" if len(without) > 1 else ""
            raise ManifestError(
                f"{step.name}: all candidates' weights of {without[0]}{others} are 0; give one of them a weight above 0"
            )
        for group, (first, *rest) in step.regressed.items():
            for other, setting, values in _differences(first, rest, candidates):
                is_share = " times the mean" if setting.key == "weight" else ""
                raise ManifestError(
                    f"{step.name}, {group}: {first.name} and {other.name} are solved for together, but have {setting}"
                    f" {values[0]:g} and {values[1]:g}{is_share}; have rules that match either match both"
                )
    return steps


def _differences(
    first: PlannedParameter, rest: Iterable[PlannedParameter], candidates: Sequence[str]
) -> Iterator[tuple[PlannedParameter, Setting, tuple[float, float]]]:
    own = settings_of(first, candidates)
    for other in (p for p in rest if (p.method, p.shares) != (first.method, first.shares)):
        for setting, value in settings_of(other, candidates).items():
            if setting in own and value != (before := own[setting]) and before is not None and value is not None:
                yield other, setting, (before, value)
