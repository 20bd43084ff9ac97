"""The model's names of the tensors in a checkpoint, by the rules with which transformers loads it."""

from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming, rename_source_key

from regstream.manifest.bounded_regex import substitute


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
        """The model's name of a tensor."""
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
        return own, next((rule for rule in self._converters if source in rule.source_patterns), None)
