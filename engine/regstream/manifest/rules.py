"""Finds the rule that applies to a parameter and gives a setting, and the rules that have no effect."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from regstream.manifest.blocks import select_blocks
from regstream.manifest.rule_table import USE, Rule, Setting

_BLOCK_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")


def match_rule(
    rules: Iterable[Rule], parameter_name: str, block: int | None, num_blocks: int, setting: Setting = USE
) -> Rule | None:
    """The first rule that applies to a parameter and gives a setting.

    `block` is None outside the blocks, where rules with `blocks` do not apply.

    Raises:
        ValueError: a rule names a block that the model does not have.
    """
    giving = (rule for rule in rules if setting in rule.settings)
    return next((rule for rule in giving if _applies(rule, parameter_name, block, num_blocks)), None)


def nearest_names(glob: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """The `limit` parameter names most similar to a glob, best first, with `*` for the number of a block."""
    patterns = list(dict.fromkeys(_BLOCK_NUMBER.sub("*", name) for name in names))
    return get_close_matches(_BLOCK_NUMBER.sub("*", glob), patterns, n=limit, cutoff=0.0)


def rule_problems(rules: Sequence[Rule], names: Iterable[tuple[str, int | None]], num_blocks: int) -> list[str]:
    """One line per rule without effect: its blocks are out of range, it matches nothing, or earlier rules match it all.

    `names` are all parameters, each with the index of its block or None.
    """
    parameters = list(names)
    valid: list[Rule] = []
    problems: list[str] = []
    for index, rule in enumerate(rules):
        try:
            problem = _problem(rule, valid, parameters, num_blocks)
            valid.append(rule)
        except ValueError as error:
            problem = f"blocks: {error}"
        if problem:
            problems.append(f"rules[{index}]: {problem}")
    return problems


def _problem(
    rule: Rule, earlier: Sequence[Rule], parameters: list[tuple[str, int | None]], num_blocks: int
) -> str | None:
    matches = [parameter for parameter in parameters if _applies(rule, *parameter, num_blocks)]
    if not matches:
        return _no_match(rule, parameters)
    for setting in rule.settings:
        if all(match_rule(earlier, *parameter, num_blocks, setting) for parameter in matches):
            key = "parameters" if setting == USE else setting.key
            given = f"match all {len(matches)}" if setting == USE else f"give {setting} to all {len(matches)}"
            return f'{key}: earlier rules {given} parameters of "{rule.parameters}"; the first match wins'
    return None


def _no_match(rule: Rule, parameters: list[tuple[str, int | None]]) -> str:
    if any(fnmatchcase(name, rule.parameters) for name, _ in parameters):
        return f'blocks: "{rule.parameters}" matches parameters, but none in blocks "{rule.blocks}"'
    nearest = ", ".join(f'"{name}"' for name in nearest_names(rule.parameters, (name for name, _ in parameters)))
    text = f'parameters: "{rule.parameters}" matches none of {len(parameters)} parameters'
    return f"{text}; the nearest: {nearest or 'none'}"


def _applies(rule: Rule, parameter_name: str, block: int | None, num_blocks: int) -> bool:
    # The blocks are checked first, so that a selector out of range is an error for every parameter name.
    if rule.blocks is not None and block not in select_blocks(rule.blocks, num_blocks):
        return False
    return fnmatchcase(parameter_name, rule.parameters)
