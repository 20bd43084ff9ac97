"""Rules that give what decides nothing, and settings that rules replace everywhere."""

from collections.abc import Iterator, Sequence

from regstream.manifest.rule_table import USE, Setting
from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest
from regstream.models.architecture.architecture import Architecture
from regstream.planning.parameter_settings import settings_of
from regstream.planning.step import PlannedParameter, Step


def unused_rules(
    manifest: Manifest, architecture: Architecture, steps: Sequence[Step], names: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each setting of a rule without effect; `names` are those of all parameters of the model."""
    parameters = {parameter.name: parameter for step in steps for parameter in step.parameters}
    num_blocks = _num_blocks(steps)
    for index, rule in enumerate(manifest.rules):
        for setting in rule.settings:
            own = [
                name
                for name in names
                if match_rule(manifest.rules, name, architecture.block_of(name), num_blocks, setting) is rule
            ]
            matched = [parameters[name] for name in own if name in parameters]
            if (setting, rule.use) == (USE, "regress") and not any(p.group is not None for p in matched):
                reason = "it matches no weight of a linear"
                yield f'rules[{index}] {rule.parameters!r}: use = "regress" regresses nothing: {reason}'
            elif setting != USE and not any(_decides(setting, parameter, manifest) for parameter in matched):
                yield f"rules[{index}] {rule.parameters!r}: {setting} has no effect on the parameters that it matches"


def replaced_everywhere(manifest: Manifest, architecture: Architecture, steps: Sequence[Step]) -> set[Setting]:
    """The settings that some rule gives to every parameter that they decide."""
    num_blocks = _num_blocks(steps)
    given = {setting for rule in manifest.rules for setting in rule.settings if setting != USE}
    deciding = set[Setting]()
    for step in steps:
        for parameter in step.parameters if given else ():
            block = architecture.block_of(parameter.name)
            decided = {setting for setting in given if _decides(setting, parameter, manifest)}
            deciding |= decided
            given -= {
                setting
                for setting in decided
                if match_rule(manifest.rules, parameter.name, block, num_blocks, setting) is None
            }
    return given & deciding


def _decides(setting: Setting, parameter: PlannedParameter, manifest: Manifest) -> bool:
    return setting in settings_of(parameter, manifest.candidate_names)


def _num_blocks(steps: Sequence[Step]) -> int:
    return 1 + max((step.block for step in steps if step.block is not None), default=0)
