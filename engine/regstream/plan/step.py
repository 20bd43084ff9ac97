"""The steps of a merge: stem, each block, head; what each one writes and what becomes of every parameter."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from regstream.errors import ManifestError
from regstream.manifest.rules import match_rule, rule_problems
from regstream.manifest.schema import Manifest, Rule
from regstream.methods.method import Method, States, Use
from regstream.models.family import Family

Kind = Literal["stem", "block", "head"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """A parameter of the result. `group` and `linear` are set where it is regressed."""

    name: str
    shape: tuple[int, ...]
    use: Use
    group: str | None = None
    linear: str | None = None
    transposed: bool = False  # stored as (in, out)

    @property
    def out_in(self) -> tuple[int, int]:
        """(out, in) features of a linear's weight, however it is stored."""
        rows, columns = self.shape
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is committed as one. Tensors stand in the order in which the shard holds them."""

    index: int
    kind: Kind
    block: int | None
    tensors: tuple[TensorPlan, ...]
    shard: str
    feeds: bool  # whether a later step's Gram matrices need the hidden states that leave this one

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.kind if self.block is None else f"block {self.block}"

    @property
    def depth(self) -> int:
        """Which generation enters it; the stem has none."""
        return -1 if self.block is None else self.block

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its tensors."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    @property
    def regressed(self) -> dict[str, tuple[TensorPlan, ...]]:
        """What is regressed, by input group."""
        groups: dict[str, list[TensorPlan]] = {}
        for tensor in self.tensors:
            if tensor.group is not None:
                groups.setdefault(tensor.group, []).append(tensor)
        return {group: tuple(tensors) for group, tensors in groups.items()}

    @property
    def num_regressed(self) -> int:
        """How many of its tensors are regressed."""
        return len(self.tensors) - len(self.folded)

    @property
    def folded(self) -> tuple[TensorPlan, ...]:
        """What is not regressed."""
        return tuple(tensor for tensor in self.tensors if tensor.group is None)


def make_steps(
    manifest: Manifest,
    method: Method,
    family: Family,
    shapes: Shapes,
    itemsize: int = 4,
    *,
    carried: Shapes = MappingProxyType({}),
) -> tuple[Step, ...]:
    """Lay out the steps for a model's parameters, of which each value will take `itemsize` bytes in the result.

    `carried` are tensors of the base that the model does not have, and the result gets as they are, with the head.

    Raises:
        ManifestError: a rule matches nothing or names blocks that are not there.
    """
    num_blocks = 1 + max(block for name in shapes if (block := family.block_of(name)) is not None)
    _check_rules(manifest.rules, family, {**shapes, **carried}, num_blocks)
    uses = _Uses(manifest, method, family, num_blocks)
    parts = [_part(kind, block, family, shapes, uses) for kind, block in _kinds(num_blocks)]
    kind, block, tensors = parts[-1]
    parts[-1] = kind, block, (*tensors, *(TensorPlan(name=n, shape=shape, use="base") for n, shape in carried.items()))
    parts = [(kind, block, tensors) for kind, block, tensors in parts if tensors]
    last = max((index for index, (_, _, tensors) in enumerate(parts) if _regresses(tensors)), default=-1)
    if method.states is States.NONE:
        last = -1
    sizes = [sum(math.prod(tensor.shape) for tensor in tensors) * itemsize for _, _, tensors in parts]
    shards = _shards(sizes, manifest.merge.shard_size)
    return tuple(
        Step(
            index=index,
            kind=kind,
            block=block,
            tensors=tensors,
            shard=shards[index],
            feeds=index < last,
        )
        for index, (kind, block, tensors) in enumerate(parts)
    )


def _shards(sizes: Sequence[int], most: int | None) -> list[str]:
    """The names of the steps' shards: one each, or consecutive steps together up to so many bytes."""
    numbers, held = [0], 0
    for size in sizes:
        joins = most is not None and held and held + size <= most
        numbers.append(numbers[-1] + (not joins))
        held = size + (held if joins else 0)
    return [f"model-{number:05d}-of-{numbers[-1]:05d}.safetensors" for number in numbers[1:]]


def _kinds(num_blocks: int) -> Iterator[tuple[Kind, int | None]]:
    yield "stem", None
    for block in range(num_blocks):
        yield "block", block
    yield "head", None


def _part(
    kind: Kind, block: int | None, family: Family, shapes: Shapes, uses: "_Uses"
) -> tuple[Kind, int | None, tuple[TensorPlan, ...]]:
    tensors = [
        uses.tensor(name, shape)
        for name, shape in shapes.items()
        if family.block_of(name) == block and (block is not None or _kind_outside(family, name) == kind)
    ]
    # Groups one after another, the rest behind them: the order in which a block's step comes to them.
    groups = [group.name for group in family.groups]
    tensors.sort(key=lambda tensor: len(groups) if tensor.group is None else groups.index(tensor.group))
    return kind, block, tuple(tensors)


def _kind_outside(family: Family, name: str) -> Kind:
    return "stem" if family.part_of(name) == "embeddings" else "head"


def _regresses(tensors: Sequence[TensorPlan]) -> bool:
    return any(tensor.use == "regress" for tensor in tensors)


def _check_rules(rules: Sequence[Rule], family: Family, shapes: Shapes, num_blocks: int) -> None:
    problems = rule_problems(rules, ((name, family.block_of(name)) for name in shapes), num_blocks)
    if problems:
        raise ManifestError(problems)


class _Uses:
    """What becomes of each parameter: the first rule, else `[merge.others]`, else the family's or the method's way."""

    def __init__(self, manifest: Manifest, method: Method, family: Family, num_blocks: int) -> None:
        self._manifest, self._method, self._family, self._num_blocks = manifest, method, family, num_blocks
        self._groups = {linear: group for group in family.groups for linear in group.linears}

    def tensor(self, name: str, shape: tuple[int, ...]) -> TensorPlan:
        block = self._family.block_of(name)
        linear = None if block is None else name.removeprefix(self._family.block_prefix(block)).removesuffix(".weight")
        regressable = linear in self._groups and name.endswith(".weight")
        use = self._use(name, block, regressable=regressable)
        if use != "regress":
            return TensorPlan(name=name, shape=shape, use=use)
        group = self._groups[str(linear)]
        return TensorPlan(name=name, shape=shape, use=use, group=group.name, linear=linear, transposed=group.transposed)

    def _use(self, name: str, block: int | None, *, regressable: bool) -> Use:
        rule = match_rule(self._manifest.rules, name, block, self._num_blocks)
        if rule is not None:
            # A glob such as "*" names norms and biases too; what cannot be regressed is averaged, as without rules.
            return "average" if rule.use == "regress" and not regressable else rule.use
        if block is not None:
            return self._method.use(regressable=regressable)
        part = self._family.part_of(name)
        assert part is not None
        asked = getattr(self._manifest.merge.others, part)
        if asked is not None:
            return "average" if asked == "average" else "base"
        return self._family.defaults[part] if self._manifest.merge.regresses else self._method.use(regressable=False)
