"""The model's names of the tensors in a checkpoint, by the rules with which transformers loads it."""

from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from regstream.manifest.bounded_regex import substitute


class ParameterNames:
    """Names in files, by those in the model; `renames` are pairs of a regular expression and its replacement.

    `converted` says which names transformers reads several tensors from, or a changed one.
    """

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

    def is_converted(self, stored_name: str) -> bool:
        """Whether transformers changes the values of a tensor when it loads them, or joins several."""
        return self._find(stored_name)[1]

    def _uncached(self, stored_name: str) -> tuple[str, bool]:
        for pattern, replacement in self._renames:
            stored_name = substitute(pattern, replacement, stored_name)
        if stored_name in self._own:
            return stored_name, False
        own, source = rename_source_key(stored_name, self._renamings, self._converters, self._prefix, self._own)
        if own not in self._own:  # transformers tries the name as it is, with the prefix alone
            own_as_is, _ = rename_source_key(stored_name, [], [], self._prefix, self._own)
            if own_as_is in self._own:
                return own_as_is, False
        return own, source is not None
