"""What was found in a model, and what becomes of it: its blocks, what is outside them, and what is not regressed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from regstream.manifest.schema import Manifest
from regstream.models.architecture.architecture import Architecture, NonBlockPart
from regstream.planning.step import PlannedParameter, Step
from regstream.validation.summaries import summarize_names

_EXPERTS = "to which each forward pass of the method, as it is set, routes other tokens"


@dataclass(frozen=True, kw_only=True)
class BlockKind:
    """Blocks with the same input groups."""

    blocks: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...]  # the linears of each group, as named in the block


@dataclass(frozen=True, kw_only=True)
class PartRule:
    """What becomes of a part outside the blocks, or of some of it: "base", "average", "combine", a candidate's name."""

    part: NonBlockPart
    rule: str
    names: tuple[str, ...]  # its modules; or summaries of parameter names, where the part has several rules


@dataclass(frozen=True, kw_only=True)
class NotRegressed:
    """Matrices of blocks that cannot be regressed for one reason. `rule` is what becomes of them instead."""

    reason: str
    rule: str
    names: str  # summarized
    num_matrices: int


@dataclass(frozen=True, kw_only=True)
class ArchitectureSummary:
    """The architecture of a merge, for people: found by running the model without its weights."""

    model_class: str
    blocks: str
    num_blocks: int
    kinds: tuple[BlockKind, ...]
    parts: tuple[PartRule, ...]
    not_regressed: tuple[NotRegressed, ...]  # empty where the method regresses nothing
    borrowed: tuple[str, ...]  # parameters of earlier steps that blocks read too
    has_targets: bool  # a row is an input and a target, for an encoder and its decoder
    runs_rows_alone: bool  # padding or other rows of a batch would change what a row gives
    regresses: bool

    def warnings(self) -> Iterator[str]:
        """A line for each reason for which matrices of blocks are not regressed."""
        becomes = {"average": "averaged", "base": "the base's", "combine": "combined by the method's formula"}
        for left_out in self.not_regressed:
            instead = becomes.get(left_out.rule, left_out.rule)
            yield f"not regressed, so {instead}: {left_out.names}: {left_out.reason}"


def summarize_architecture(
    architecture: Architecture, steps: Sequence[Step], manifest: Manifest
) -> ArchitectureSummary:
    """Summarize an architecture together with what the steps of a manifest's merge make of its parameters."""
    candidates, regresses = manifest.candidate_names, manifest.merge.regresses
    parameters = {parameter.name: parameter for step in steps for parameter in step.parameters}
    return ArchitectureSummary(
        model_class=architecture.model_class,
        blocks=" and ".join(stack.blocks for stack in architecture.stacks),
        num_blocks=sum(step.kind == "block" for step in steps),
        kinds=tuple(_kinds(architecture)),
        parts=tuple(
            rule for part in architecture.parts for rule in _part_rules(architecture, part, parameters, candidates)
        ),
        not_regressed=tuple(_not_regressed(architecture, parameters)) if regresses else (),
        borrowed=tuple(dict.fromkeys(name for stack in architecture.stacks for name in stack.call.borrowed)),
        runs_rows_alone=architecture.call.mixes_rows,
        has_targets=architecture.has_targets,
        regresses=regresses,
    )


def _kinds(architecture: Architecture) -> Iterator[BlockKind]:
    blocks_of: dict[tuple[tuple[str, ...], ...], list[int]] = defaultdict(list)
    for block, groups in enumerate(architecture.groups):
        blocks_of[tuple(group.linears for group in groups)].append(block)
    for linears, blocks in blocks_of.items():
        yield BlockKind(blocks=tuple(blocks), groups=linears)


def _part_rules(
    architecture: Architecture,
    part: NonBlockPart,
    parameters: Mapping[str, PlannedParameter],
    candidates: Sequence[str],
) -> Iterator[PartRule]:
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        if architecture.part_of(name) == part:
            taken = parameter.rule if parameter.candidate is None else candidates[parameter.candidate]
            names_of[taken].append(name)
    for rule, names in names_of.items():
        # Modules that hold nothing of their own are no news: a head that is tied to the embeddings.
        modules = [m for m in architecture.parts[part] if any(f"{name}.".startswith(f"{m}.") for name in names)]
        own = tuple(modules) if len(names_of) == 1 else (summarize_names(names),)
        yield PartRule(part=part, rule=rule, names=own)


def _not_regressed(architecture: Architecture, parameters: Mapping[str, PlannedParameter]) -> Iterator[NotRegressed]:
    names_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for block, reasons in enumerate(architecture.not_regressed):
        for matrix, reason in reasons.items():
            name = f"{architecture.block_prefix(block)}{matrix}"
            if name in parameters:
                names_of[reason, parameters[name].rule].append(name)
    for (reason, rule), names in names_of.items():
        yield NotRegressed(reason=reason, rule=rule, names=summarize_names(names), num_matrices=len(names))
    yield from _experts_left_out(architecture, parameters)


def _experts_left_out(architecture: Architecture, parameters: Mapping[str, PlannedParameter]) -> Iterator[NotRegressed]:
    names_of, experts_of = defaultdict[str, list[str]](list), defaultdict[str, set[tuple[int, str]]](set)
    for block, groups in enumerate(architecture.groups):
        for group, linear in ((each, linear) for each in groups if each.is_routed for linear in each.linears):
            parameter = parameters.get(f"{architecture.block_prefix(block)}{linear}.weight")
            if parameter is not None and not parameter.is_linear:
                names_of[parameter.rule].append(parameter.name)
                expert = str(group.expert) if group.fused_weight else linear.rpartition(".")[0]
                experts_of[parameter.rule].add((block, expert))
    for rule, names in names_of.items():
        num_experts, num_blocks = len(experts_of[rule]), len({block for block, _ in experts_of[rule]})
        reason = f"{num_experts:,} experts of {num_blocks:,} blocks, {_EXPERTS}"
        yield NotRegressed(reason=reason, rule=rule, names=summarize_names(names), num_matrices=len(names))
