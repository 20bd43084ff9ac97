"""One step of a merge: what is committed as one, what it writes, and what becomes of each parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from regstream.methods.method import LinearGroup, MergeRule
from regstream.models.parameter import Parameter

Kind = Literal["stem", "block", "head"]


@dataclass(frozen=True, kw_only=True)
class PlannedParameter(Parameter):
    """A parameter of the result, and what becomes of it. `group` and `linear` are set where it is regressed."""

    rule: MergeRule
    candidate: int | None = None  # with the rule "candidate": the index of the one whose tensor it is
    group: str | None = None
    linear: str | None = None
    is_linear: bool = False  # the weight of a linear in a block
    transposed: bool = False  # stored as (in, out)

    @property
    def out_in(self) -> tuple[int, int]:
        """(out, in) features of a linear's weight, however it is stored."""
        rows, columns = self.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def is_mean(self) -> bool:
        """Whether its value follows from the candidates' mean."""
        return self.rule in ("average", "combine")

    def is_taken_from(self, candidate: int) -> bool:
        """Whether its value follows from the tensor of the candidate of an index."""
        return self.rule == "regress" or self.is_mean or self.candidate == candidate


@dataclass(frozen=True, kw_only=True)
class Step:
    """Stem, a block, or head. Its parameters are in the order in which the shard holds them."""

    index: int
    kind: Kind
    block: int | None
    parameters: tuple[PlannedParameter, ...]
    shard: str
    writes_hidden_states: bool  # a later step's statistics need the hidden states that leave this one
    borrowed: tuple[Parameter, ...] = ()  # of the stem, which a block's forward reads too

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.kind if self.block is None else f"block {self.block}"

    @property
    def depth(self) -> int:
        """The depth of the hidden states that enter it; -1 for stem and head."""
        return -1 if self.block is None else self.block

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its parameters, by the model's names."""
        return {parameter.name: parameter.shape for parameter in self.parameters}

    @property
    def regressed(self) -> dict[str, tuple[PlannedParameter, ...]]:
        """What is regressed, by input group."""
        groups: dict[str, list[PlannedParameter]] = {}
        for parameter in self.parameters:
            if parameter.group is not None:
                groups.setdefault(parameter.group, []).append(parameter)
        return {group: tuple(parameters) for group, parameters in groups.items()}

    def linears_of(self, groups: Sequence[str]) -> tuple[PlannedParameter, ...]:
        """What is regressed of some input groups."""
        return tuple(parameter for group in groups for parameter in self.regressed[group])

    def linear_group(self, name: str) -> LinearGroup:
        """The linears of an input group that are regressed."""
        linears = self.regressed[name]
        return LinearGroup(
            name=name,
            in_features=linears[0].out_in[1],
            out_features={str(parameter.linear): parameter.out_in[0] for parameter in linears},
            transposed=linears[0].transposed,
        )

    @property
    def num_regressed(self) -> int:
        """How many of its parameters are regressed."""
        return len(self.parameters) - len(self.not_regressed)

    @property
    def not_regressed(self) -> tuple[PlannedParameter, ...]:
        """Parameters that are averaged, copied from one checkpoint, or combined by the method's formula."""
        return tuple(parameter for parameter in self.parameters if parameter.group is None)
