"""The steps of a merge, in order: stem, each block, head; and what becomes of each parameter."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

from regstream.errors import ManifestError
from regstream.manifest.rule_table import Rule
from regstream.manifest.rules import rule_problems
from regstream.manifest.schema import Manifest
from regstream.methods.method import Method
from regstream.models.architecture.architecture import Architecture, InputGroup
from regstream.models.parameter import Parameter
from regstream.planning.parameter_settings import ParameterSettings, SettingsResolver, check_settings
from regstream.planning.step import Kind, PlannedParameter, Step
from regstream.validation.merge_rules import ChosenRule, MergeRules

ParameterShapes = Mapping[str, tuple[int, ...]]


def make_steps(
    manifest: Manifest,
    method: Method,
    architecture: Architecture,
    shapes: ParameterShapes,
    itemsize: int = 4,
    *,
    copied_from_base: ParameterShapes = MappingProxyType({}),
    stored_name: Callable[[str], str] = str,
    stored_shape: Callable[[str], tuple[int, ...]] = lambda _name: (),
    runs_towers: bool = False,
) -> tuple[Step, ...]:
    """Lay out the steps for a model's parameters, each value of which takes `itemsize` bytes in the result.

    `copied_from_base` are tensors that the model does not have; the result gets the base's, with the head. The result's
    files have the names of `stored_name`; parts of a tensor have its `stored_shape`. `runs_towers`: images go through.

    Raises:
        ManifestError: rules do not fit the model, or parameters cannot be merged with their settings.
    """
    num_blocks = 1 + max(block for name in shapes if (block := architecture.block_of(name)) is not None)
    _check_rules(manifest.rules, architecture, merged := {**shapes, **copied_from_base}, num_blocks)
    rules = MergeRules(manifest, method, architecture, num_blocks)
    settings = SettingsResolver(manifest, method, architecture, num_blocks)
    parameters = _parameters(merged, architecture, stored_name, stored_shape)
    steps = list[tuple[_Place, list[PlannedParameter]]]()
    for place in _places(architecture, num_blocks):
        names = (name for name in shapes if _belongs(architecture, name, place, runs_towers=runs_towers))
        found = [_planned(rules, settings.of(name), parameters[name]) for name in names]
        found += [_copied(settings, parameters[name]) for name in copied_from_base if place.kind == "head"]
        if found or place.stack:  # a decoder's stem may read nothing of its own
            steps.append((place, _in_group_order(found, architecture, place.block)))
    shards = _shard_names([_num_values(found) * itemsize for _, found in steps], manifest.merge.shard_size)
    last = _last_regression(method, [found for _, found in steps])
    made = (
        Step(
            **_of_place(architecture, place, parameters),
            index=index,
            shard=shard,
            parameters=tuple(found),
            writes_hidden_states=index < last,
        )
        for index, ((place, found), shard) in enumerate(zip(steps, shards, strict=True))
    )
    return check_settings(made, manifest.candidate_names)


class _Place(NamedTuple):
    """Where a step is: a stem or a block of a stack, or the head."""

    kind: Kind
    block: int | None = None
    stack: int = 0


def _of_place(architecture: Architecture, place: _Place, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Fields of the step of a place."""
    borrowed = tuple(parameters[name] for name in _borrowed(architecture, place))
    return {**place._asdict(), "borrowed": borrowed, "group_stacks": _group_stacks(architecture, place)}


def _borrowed(architecture: Architecture, place: _Place) -> tuple[str, ...]:
    if place.block is not None:
        return architecture.borrowed(place.block)
    return architecture.stacks[place.stack].stem_borrows if place.kind == "stem" else ()


def _group_stacks(architecture: Architecture, place: _Place) -> dict[str, int]:
    if place.block is None:
        return {}
    return {group.name: group.stack for group in architecture.groups[place.block] if group.stack != place.stack}


def _last_regression(method: Method, steps: Sequence[Sequence[PlannedParameter]]) -> int:
    """The index of the last step that solves for something; -1 without one, or where no calibration set is read."""
    regressing = [i for i, parameters in enumerate(steps) if any(p.group is not None for p in parameters)]
    return regressing[-1] if regressing and method.needs_calibration() else -1


def _num_values(parameters: Iterable[Parameter]) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters)


def _shard_names(sizes: Sequence[int], shard_size: int | None) -> list[str]:
    """The names of the steps' shards: one each, or consecutive steps together up to `shard_size` bytes."""
    numbers, total = [0], 0
    for size in sizes:
        joins = shard_size is not None and size and total and total + size <= shard_size
        numbers.append(numbers[-1] + (not joins))
        total = size + (total if joins else 0)
    return [f"model-{number:05d}-of-{numbers[-1]:05d}.safetensors" for number in numbers[1:]]


def _places(architecture: Architecture, num_blocks: int) -> Iterator[_Place]:
    for stack in range(len(architecture.stacks)):
        yield _Place("stem", stack=stack)
        is_last = stack == len(architecture.stacks) - 1
        for block in range(
            architecture.first_block(stack), num_blocks if is_last else architecture.first_block(stack + 1)
        ):
            yield _Place("block", block, stack)
    yield _Place("head")


def _belongs(architecture: Architecture, name: str, place: _Place, *, runs_towers: bool) -> bool:
    if place.block is not None or architecture.block_of(name) is not None:
        return architecture.block_of(name) == place.block
    if (stack := architecture.stem_of(name)) is not None:
        return (place.kind, place.stack) == ("stem", stack)
    in_stem = ("embeddings", "towers") if runs_towers else ("embeddings",)
    return (architecture.part_of(name) in in_stem) == (place.kind == "stem") and place.stack == 0


def _parameters(
    shapes: ParameterShapes,
    architecture: Architecture,
    stored_name: Callable[[str], str],
    stored_shape: Callable[[str], tuple[int, ...]],
) -> dict[str, Parameter]:
    return {
        name: Parameter(
            name=name,
            block_name=architecture.name_in_block(name),
            stored_name=stored_name(name),
            shape=shape,
            stored_shape=stored_shape(name),
        )
        for name, shape in shapes.items()
    }


def _planned(rules: MergeRules, settings: ParameterSettings, parameter: Parameter) -> PlannedParameter:
    group = rules.group_of(parameter)
    chosen = rules.rule_of(parameter.name, is_linear=group is not None)
    if chosen.rule != "calibrate":
        return _with_rule(parameter, settings, chosen, group)
    calibrated_with = rules.calibrated_with(parameter)
    found = _with_rule(parameter, settings, ChosenRule("combine") if calibrated_with is None else chosen)
    return replace(found, group=calibrated_with)


def _copied(settings: SettingsResolver, parameter: Parameter) -> PlannedParameter:
    return _with_rule(parameter, settings.of(parameter.name), ChosenRule("base"))


def _with_rule(
    parameter: Parameter, settings: ParameterSettings, chosen: ChosenRule, group: InputGroup | None = None
) -> PlannedParameter:
    regressed = group if chosen.rule == "regress" else None
    if chosen.rule == "combine" and not settings.method.reads_weights:
        settings = settings._replace(shares=(1.0,) * len(settings.shares))
    return PlannedParameter(
        **vars(parameter),
        **settings._asdict(),
        rule=chosen.rule,
        candidate=chosen.candidate,
        group=regressed.name if regressed is not None else None,
        linear=parameter.block_name.removesuffix(".weight") if regressed is not None else None,
        is_linear=group is not None,
        transposed=group is not None and group.transposed,
        share=regressed.share if regressed is not None and regressed.is_routed else None,
    )


def _in_group_order(
    parameters: list[PlannedParameter], architecture: Architecture, block: int | None
) -> list[PlannedParameter]:
    """Groups one after another, then norms, then the rest: the order in which a block's step comes to them."""
    groups: list[str] = []
    if block is not None:
        groups = [group.name for group in architecture.groups[block]]
        groups += [norm.name for norm in architecture.norms_of(block)]
    order = {group: number for number, group in enumerate(groups)}
    found = sorted(parameters, key=lambda p: len(order) if p.group is None else order[p.group])
    _check_joined(parameters, found)
    return found


def _check_joined(parameters: Sequence[PlannedParameter], ordered: Sequence[PlannedParameter]) -> None:
    """Refuse rules that tell apart what the base's files hold in one tensor, which is written in its order."""
    before = dict(zip((p.name for p in ordered), (None, *ordered), strict=False))
    for previous, parameter in pairwise(parameters):
        is_joined = bool(parameter.stored_shape) and parameter.stored_name == previous.stored_name
        if is_joined and before[parameter.name] != previous:
            raise ManifestError(
                f"rules: {previous.name} and {parameter.name} are parts of one tensor of the base,"
                f" {parameter.stored_name}, and have different rules; give all of its parts one"
            )


def _check_rules(rules: Sequence[Rule], architecture: Architecture, shapes: ParameterShapes, num_blocks: int) -> None:
    problems = rule_problems(rules, ((name, architecture.block_of(name)) for name in shapes), num_blocks)
    if problems:
        raise ManifestError(problems)
