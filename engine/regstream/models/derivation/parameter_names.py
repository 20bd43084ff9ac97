"""The model's names of the tensors in a checkpoint, by the rules with which transformers loads it."""

from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

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
        """What transformers does with the values of a tensor when it loads them; None where it takes them as they are."""
        return self._find(stored_name)[1]

    def _uncached(self, stored_name: str) -> tuple[str, str | None]:
        for pattern, replacement in self._renames:
            stored_name = substitute(pattern, replacement, stored_name)
        if stored_name in self._own:
            return stored_name, None
        own, source = rename_source_key(stored_name, self._renamings, self._converters, self._prefix, self._own)
        if own not in self._own:  # transformers tries the name as it is, with the prefix alone
            own_as_is, _ = rename_source_key(stored_name, [], [], self._prefix, self._own)
            if own_as_is in self._own:
                return own_as_is, None
        return own, None if source is None else self._operations(source)

    def _operations(self, source: str) -> str:
        converter = next(rule for rule in self._converters if source in rule.source_patterns)
        names = dict.fromkeys(type(operation).__name__ for operation in converter.operations)
        return f"{', '.join(names)} into {' and '.join(converter.target_patterns)}"
