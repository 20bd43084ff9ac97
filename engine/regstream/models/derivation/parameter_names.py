"""The model's names of the tensors in a checkpoint, by the rules with which transformers loads it."""

import re
from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    apply_renamings,
    rename_source_key,
)

from regstream.manifest.bounded_regex import substitute

#: A name in which a star stands for the number of an expert.
_ONE_STAR = re.compile(r"[\w.]+\.\*\.[\w.]+")


class ParameterNames:
    """Names in files, by those in the model; `renames` are pairs of a regular expression and its replacement."""

    def __init__(self, model: PreTrainedModel, renames: Iterable[tuple[str, str]] = ()) -> None:
        self._renames = tuple(renames)
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._prefix = model.base_model_prefix
        self._own = dict.fromkeys(model.state_dict(), True)
        self._find = lru_cache(maxsize=None)(self._uncached)

    def __call__(self, stored_name: str) -> str:
        """The model's name of a tensor: of an expert's matrix one of `expert_pieces`."""
        return self._find(stored_name)[0]

    def conversion(self, stored_name: str) -> str | None:
        """What transformers does with the values of a tensor when it loads it; None where it takes them as they are."""
        converter = self._find(stored_name)[1]
        if converter is None or self.pieces(stored_name):
            return None
        operations = dict.fromkeys(type(operation).__name__ for operation in converter.operations)
        return f"{', '.join(operations)} into {' and '.join(converter.target_patterns)}"

    def pieces(self, stored_name: str) -> tuple[str, ...]:
        """The parameters whose rows, one after another, a tensor holds; empty for a single one."""
        own, converter = self._find(stored_name)
        if converter is None or len(converter.source_patterns) != 1 or len(converter.operations) != 1:
            return ()
        first, *others = converter.target_patterns
        if not isinstance(converter.operations[0], Chunk) or converter.operations[0].dim != 0 or not others:
            return ()
        return (own, *(own.replace(first, other, 1) for other in others))

    def expert_pieces(self, own: str, num_experts: int) -> tuple[str, ...]:
        """The names of the matrices that files may hold apart, and the model in one parameter: expert after expert.

        Empty for any other parameter.
        """
        for converter in self._converters:
            prefix = own.removesuffix(converter.target_patterns[0])
            if prefix != own and (sources := _expert_sources(converter)):
                numbers = map(str, range(num_experts))
                return tuple(prefix + source.replace("*", number) for number in numbers for source in sources)
        return ()

    def _uncached(self, stored_name: str) -> tuple[str, WeightConverter | None]:
        for pattern, replacement in self._renames:
            stored_name = substitute(pattern, replacement, stored_name)
        if stored_name in self._own:
            return stored_name, None
        own, source = rename_source_key(stored_name, self._renamings, self._converters, self._prefix, self._own)
        if own not in self._own:  # transformers tries the name as it is, with the prefix alone
            own_as_is, _ = rename_source_key(stored_name, [], [], self._prefix, self._own)
            if own_as_is in self._own:
                return own_as_is, None
        converter = next((rule for rule in self._converters if source in rule.source_patterns), None)
        if converter is not None and (piece := self._expert_piece(stored_name, own, converter)):
            return piece, None
        return own, converter

    def _expert_piece(self, stored_name: str, own: str, converter: WeightConverter) -> str | None:
        """The name of an expert's matrix that a converter makes a part of the parameter `own`."""
        prefix, name = own.removesuffix(converter.target_patterns[0]), apply_renamings(stored_name, self._renamings)
        for source in _expert_sources(converter):
            before, after = source.split("*")
            if found := re.search(rf"{re.escape(before)}(\d+){re.escape(after)}$", name):
                return prefix + source.replace("*", str(int(found[1])))
        return None


def _expert_sources(converter: WeightConverter) -> tuple[str, ...]:
    """The names that a converter stacks expert by expert, and joins row by row; empty where it does anything else."""
    sources, (first, *others) = tuple(converter.source_patterns), converter.operations
    stacks = isinstance(first, MergeModulelist) and first.dim == 0 and len(converter.target_patterns) == 1
    joins = all(isinstance(other, Concatenate) and other.dim == 1 for other in others)
    is_plain = all(_ONE_STAR.fullmatch(source) for source in sources)
    return sources if stacks and joins and is_plain and len(others) == (len(sources) > 1) else ()
