"""Rotary embeddings that remember the longest row, made to forget it: a row must not depend on those before it.

transformers' `dynamic` type keeps the frequencies of the longest row until one that is shorter than those of training.
"""

from collections.abc import Iterable

from torch import nn

_ORIGINAL = "original_inv_freq"


def remembering_modules(model: nn.Module) -> list[nn.Module]:
    """The modules whose rotary embeddings grow with the longest row."""
    return [module for module in model.modules() if "dynamic" in _types(module)]


def forget_rows(modules: Iterable[nn.Module]) -> None:
    """Give these modules their first frequencies again."""
    for module in modules:
        for name in [name for name in (*vars(module), *module._buffers) if name.endswith(_ORIGINAL)]:
            prefix, first = name.removesuffix(_ORIGINAL), getattr(module, name)
            current = getattr(module, f"{prefix}inv_freq")
            module.register_buffer(f"{prefix}inv_freq", first.to(current.device), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _types(module: nn.Module) -> tuple[object, ...]:
    kinds = getattr(module, "rope_type", None)
    return tuple(kinds.values()) if isinstance(kinds, dict) else (kinds,)
