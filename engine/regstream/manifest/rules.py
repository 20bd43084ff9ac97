"""Which rule applies to a parameter, and which rules apply to none."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from regstream.manifest.blocks import select_blocks
from regstream.manifest.schema import Rule

_BLOCK_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")


def match_rule(rules: Iterable[Rule], parameter_name: str, block: int | None, num_blocks: int) -> Rule | None:
    """The first rule that applies to a parameter; where `block` is None, in no block, only rules without `blocks` do.

    Raises:
        ValueError: a rule names a block that the model does not have.
    """
    return next((rule for rule in rules if _applies(rule, parameter_name, block, num_blocks)), None)


def nearest_names(glob: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """Up to `limit` parameter names that a glob resembles, best first, with `*` for the number of a block."""
    folded = list(dict.fromkeys(_BLOCK_NUMBER.sub("*", name) for name in names))
    return get_close_matches(_BLOCK_NUMBER.sub("*", glob), folded, n=limit, cutoff=0.0)


def rule_problems(rules: Sequence[Rule], names: Iterable[tuple[str, int | None]], num_blocks: int) -> list[str]:
    """One line for every rule without effect: blocks out of range, nothing matched, or all of it by earlier rules."""
    parameters = list(names)
    in_range: list[Rule] = []
    problems: list[str] = []
    for index, rule in enumerate(rules):
        try:
            problem = _problem(rule, in_range, parameters, num_blocks)
            in_range.append(rule)
        except ValueError as error:
            problem = f"blocks: {error}"
        if problem:
            problems.append(f"rules[{index}]: {problem}")
    return problems


def _problem(
    rule: Rule, earlier: Sequence[Rule], parameters: list[tuple[str, int | None]], num_blocks: int
) -> str | None:
    hits = [parameter for parameter in parameters if _applies(rule, *parameter, num_blocks)]
    if not hits:
        return _nothing_matched(rule, parameters)
    if all(match_rule(earlier, *parameter, num_blocks) for parameter in hits):
        return (
            f'parameters: earlier rules match all {len(hits)} parameters of "{rule.parameters}"; the first match wins'
        )
    return None


def _nothing_matched(rule: Rule, parameters: list[tuple[str, int | None]]) -> str:
    if any(fnmatchcase(name, rule.parameters) for name, _ in parameters):
        return f'blocks: "{rule.parameters}" matches parameters, but none in blocks "{rule.blocks}"'
    near = ", ".join(f'"{name}"' for name in nearest_names(rule.parameters, (name for name, _ in parameters)))
    return (
        f'parameters: "{rule.parameters}" matches none of {len(parameters)} parameters; the nearest: {near or "none"}'
    )


def _applies(rule: Rule, parameter_name: str, block: int | None, num_blocks: int) -> bool:
    # Blocks first: that a selector is out of range must not depend on which names there are.
    if rule.blocks is not None and block not in select_blocks(rule.blocks, num_blocks):
        return False
    return fnmatchcase(parameter_name, rule.parameters)
