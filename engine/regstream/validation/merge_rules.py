"""What becomes of each parameter, and so which checkpoints it is read from."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Manifest
from regstream.methods.method import MergeRule, Method
from regstream.models.architecture.architecture import Architecture, InputGroup, NonBlockPart
from regstream.models.parameter import Parameter


class ChosenRule(NamedTuple):
    """A rule; with "candidate", the index of the candidate whose tensor the result takes."""

    rule: MergeRule
    candidate: int | None = None


class MergeRules:
    """The first of `[[rules]]`, else `[merge.others]`, else the architecture's default or the method's own rule."""

    def __init__(self, manifest: Manifest, method: Method, architecture: Architecture, num_blocks: int) -> None:
        self._manifest, self._method, self._architecture, self._num_blocks = manifest, method, architecture, num_blocks
        self._candidates = {candidate.name: index for index, candidate in enumerate(manifest.candidates)}
        with_experts = method.regresses_experts()
        self._groups = [
            {linear: g for g in groups for linear in g.linears if with_experts or not g.is_routed}
            for groups in architecture.groups
        ]

    def group_of(self, parameter: Parameter) -> InputGroup | None:
        """The input group of a block's linear whose weight the parameter is; None for any other parameter."""
        block = self._architecture.block_of(parameter.name)
        if block is None or not parameter.block_name.endswith(".weight"):
            return None
        return self._groups[block].get(parameter.block_name.removesuffix(".weight"))

    def regressed(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The weights of these that are regressed, with their shapes."""
        names = (
            f"{self._architecture.block_prefix(block)}{linear}.weight"
            for block, linears in enumerate(self._groups)
            for linear in linears
        )
        return {n: shapes[n] for n in names if n in shapes and self.rule_of(n, is_linear=True).rule == "regress"}

    def rule_of(self, name: str, *, is_linear: bool = False) -> ChosenRule:
        """What becomes of a parameter; `is_linear`: a linear's weight in a block, which may be regressed."""
        block = self._architecture.block_of(name)
        rule = match_rule(self._manifest.rules, name, block, self._num_blocks)
        if rule is not None and rule.use is not None:
            # A glob such as "*" matches norms and biases too; what cannot be regressed is as without rules.
            rest = "average" if block is None else self._method.rule(is_linear=False)
            return ChosenRule(rest if rule.use == "regress" and not is_linear else rule.use)
        if block is not None:
            return ChosenRule(self._method.rule(is_linear=is_linear))
        part = self._architecture.part_of(name)
        assert part is not None
        return self.chosen(part) or self.default(part)

    def calibrated_with(self, parameter: Parameter) -> str | None:
        """The input group or norm with which a parameter of the rule "calibrate" is solved for; None where it is not.

        A bias is solved for with its weight.
        """
        block = self._architecture.block_of(parameter.name)
        module, _, leaf = parameter.block_name.rpartition(".")
        if block is None or leaf not in ("weight", "bias"):
            return None
        weight = f"{self._architecture.block_prefix(block)}{module}.weight"
        if (group := self._groups[block].get(module)) is not None:
            return group.name if self.rule_of(weight, is_linear=True).rule == "regress" else None
        norms = [norm.name for norm in self._architecture.norms_of(block)]
        return module if module in norms and self.rule_of(weight).rule == "calibrate" else None

    def chosen(self, part: NonBlockPart) -> ChosenRule | None:
        """What the manifest's `[merge.others]` says of a part."""
        use = getattr(self._manifest.merge.others, part)
        fixed: dict[str | None, ChosenRule | None] = {
            None: None, "base": ChosenRule("base"), "average": ChosenRule("average")
        }  # fmt: skip
        return fixed[use] if use in fixed else ChosenRule("candidate", self._candidates[use])

    def default(self, part: NonBlockPart) -> ChosenRule:
        """What becomes of a part of which the manifest says nothing."""
        return ChosenRule(self._method.rule_outside(self._architecture.defaults[part]))

    def unread(self, names: Iterable[str], candidate: int) -> dict[str, str]:
        """The parameters that are not read from a candidate, and whose tensor the result has instead.

        A candidate's block is always read, and its stem where the candidate's own hidden states start from it: its
        embeddings, and the towers that images of its rows may go through.
        """
        runs_own_stem = "own" in self._method.prefixes()
        unread: dict[str, str] = {}
        for name in names:
            part = self._architecture.part_of(name)
            if part is None or (part in ("embeddings", "towers") and runs_own_stem):
                continue
            rule, source = self.rule_of(name)
            if rule == "base":
                unread[name] = "the base's"
            elif rule == "candidate" and source is not None and source != candidate:
                unread[name] = f'candidate "{self._manifest.candidates[source].name}"\'s'
        return unread
