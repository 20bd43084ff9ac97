"""One step of a merge: what is committed as one, what it writes, and what becomes of each parameter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from regstream.methods.method import MergeRule, Method
from regstream.methods.statistics import LinearGroup, NormGroup
from regstream.models.architecture.architecture import place_name
from regstream.models.parameter import Parameter

Kind = Literal["stem", "block", "head"]


@dataclass(frozen=True, kw_only=True)
class PlannedParameter(Parameter):
    """A parameter of the result, and what becomes of it.

    `group` is set where it is solved for: the input group of its linear, or its norm. `linear` is set where it is a
    weight that is regressed.
    """

    rule: MergeRule
    method: Method  # with its numbers as they are for this parameter
    shares: tuple[float, ...]  # each candidate's weight over the mean of all; 0 leaves it out
    scales: tuple[float | None, ...]  # the `scale` of each candidate that has one of its own
    densities: tuple[float | None, ...]  # likewise its `density`
    candidate: int | None = None  # with the rule "candidate": the index of the one whose tensor it is
    group: str | None = None
    linear: str | None = None
    is_linear: bool = False  # the weight of a linear in a block
    transposed: bool = False  # stored as (in, out)
    share: float | None = None  # of an expert's weight that is regressed: of all tokens those that it gets on average

    @property
    def out_in(self) -> tuple[int, int]:
        """(out, in) features of a linear's weight, however it is stored."""
        rows, columns = self.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def key(self) -> str:
        """What statistics call it."""
        return self.linear or self.block_name

    def is_taken_from(self, candidate: int) -> bool:
        """Whether its value follows from the tensor of the candidate of an index."""
        return self.rule not in ("base", "candidate") or self.candidate == candidate


@dataclass(frozen=True, kw_only=True)
class OwnedParts:
    """What of a step one rank does for all: the groups that it solves, and the parameters that it measures, by name."""

    solved: frozenset[str]
    measured: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stem, a block, or head. Its parameters are in the order in which the shard holds them."""

    index: int
    kind: Kind
    block: int | None
    parameters: tuple[PlannedParameter, ...]
    shard: str
    writes_hidden_states: bool  # a later step's statistics need the hidden states that leave this one
    borrowed: tuple[Parameter, ...] = ()  # of earlier steps, which its forward reads too
    stack: int = 0  # whose block it is, or whose stem: a decoder's comes after the encoder's blocks
    #: The stack whose tokens a group's linears read, where that is another: cross-attention reads an encoder's output.
    group_stacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "head" if self.kind == "head" else place_name(self.stack, self.block)

    @property
    def depth(self) -> int:
        """The depth of the hidden states that enter it; -1 for the first stem and head.

        Each stem after the first adds one to the depth of the blocks that follow.
        """
        if self.block is not None:
            return self.block + self.stack
        return self.index - 1 if self.kind == "stem" else -1

    @property
    def entered_stack(self) -> int:
        """The stack that the hidden states which enter it are of: of a decoder's stem, the encoder."""
        return max(0, self.stack - (self.kind == "stem"))

    @property
    def is_first_stem(self) -> bool:
        """Whether it begins from the rows."""
        return self.kind == "stem" and self.stack == 0

    def is_read_later(self, steps: Iterable["Step"]) -> bool:
        """Whether others of these steps borrow some of its parameters."""
        borrowed = {parameter.name for step in steps if step.index > self.index for parameter in step.borrowed}
        return not borrowed.isdisjoint(self.shapes)

    def stack_of(self, group: str) -> int:
        """The stack whose tokens the linears of an input group read, or a norm."""
        return self.group_stacks.get(group, self.stack)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its parameters, by the model's names."""
        return {parameter.name: parameter.shape for parameter in self.parameters}

    @cached_property
    def regressed(self) -> dict[str, tuple[PlannedParameter, ...]]:
        """What is solved for, by input group or norm."""
        groups: dict[str, list[PlannedParameter]] = {}
        for parameter in self.parameters:
            if parameter.group is not None:
                groups.setdefault(parameter.group, []).append(parameter)
        return {group: tuple(parameters) for group, parameters in groups.items()}

    def parameters_of(self, groups: Sequence[str]) -> tuple[PlannedParameter, ...]:
        """What is solved for of some input groups and norms."""
        return tuple(parameter for group in groups for parameter in self.regressed[group])

    def method_of(self, group: str) -> Method:
        """The method that solves for a group, with its numbers as they are there."""
        return self.regressed[group][0].method

    def shares_of(self, group: str) -> tuple[float, ...]:
        """The candidates' shares in what is solved for as a group."""
        return self.regressed[group][0].shares

    def linear_groups(self, names: Iterable[str]) -> list[LinearGroup]:
        """Those of some groups that are input groups, with the linears that are regressed."""
        linears = {name: [p for p in self.regressed[name] if p.linear is not None] for name in names}
        return [
            LinearGroup(
                name=name,
                in_features=found[0].out_in[1],
                out_features={str(parameter.linear): parameter.out_in[0] for parameter in found},
                transposed=found[0].transposed,
                share=found[0].share,
                biases=tuple(p.key.removesuffix(".bias") for p in self.regressed[name] if p.linear is None),
            )
            for name, found in linears.items()
            if found
        ]

    def norm_groups(self, names: Iterable[str]) -> list[NormGroup]:
        """Those of some groups that are norms."""
        found = {name: self.regressed[name] for name in names}
        return [
            NormGroup(name=name, channels=parameters[0].shape[0], has_bias=len(parameters) > 1)
            for name, parameters in found.items()
            if all(parameter.linear is None for parameter in parameters)
        ]

    @property
    def num_regressed(self) -> int:
        """How many weights of linears are regressed."""
        return sum(parameter.linear is not None for parameter in self.parameters)

    @property
    def not_regressed(self) -> tuple[PlannedParameter, ...]:
        """Parameters that are averaged, copied from one checkpoint, or combined by the method's formula."""
        return tuple(parameter for parameter in self.parameters if parameter.group is None)
