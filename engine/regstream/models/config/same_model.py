"""Whether two models without weights are the same beside their weights: modules, shapes, buffers and settings."""

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

#: What torch keeps of a module beside its settings.
_OWN = frozenset(vars(nn.Module())) | {"config", "generation_config", "name_or_path"}
_DEEPEST = 8


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models, of which parameters may be on the meta device, differ by no more than their parameters."""
    modules, others = dict(first.named_modules()), dict(second.named_modules())
    return modules.keys() == others.keys() and all(_same_module(modules[name], others[name]) for name in modules)


def _same_module(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, nn.Dropout):
        return True  # nothing is dropped when a model is not trained
    shapes, others = ({n: p.shape for n, p in m.named_parameters(recurse=False)} for m in (first, second))
    buffers, other_buffers = (dict(m.named_buffers(recurse=False)) for m in (first, second))
    settings, other_settings = (
        {key: value for key, value in vars(m).items() if key not in _OWN and "dropout" not in key}
        for m in (first, second)
    )
    return shapes == others and _same(buffers, other_buffers) and _same(settings, other_settings)


def _same(first: Any, second: Any, depth: int = 0) -> bool:
    """Whether two settings are the same; what cannot be told is not."""
    if first is second or isinstance(first, PreTrainedConfig):
        return True
    if type(first) is not type(second) or depth > _DEEPEST:
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and (first.is_meta or torch.equal(first, second))
    if isinstance(first, nn.Module):
        return same_state(first, second)
    parts, others = _parts(first), _parts(second)
    if parts is None or others is None:
        return bool(first == second)
    return len(parts) == len(others) and all(_same(a, b, depth + 1) for a, b in zip(parts, others, strict=True))


def _parts(value: Any) -> list[Any] | None:
    """What a setting is made of; None for one that is compared as it is."""
    match value:
        case dict():
            return [list(value), *value.values()]
        case list() | tuple():
            return list(value)
        case partial():
            return [value.func, value.args, value.keywords]
        case MethodType():  # the modules that methods are of are compared by themselves
            return [value.__func__]
    return [vars(value)] if hasattr(value, "__dict__") and not callable(value) else None
