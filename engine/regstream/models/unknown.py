"""Tensors of unknown values, so that a forward pass skips what does not depend on what is asked of it.

An operation on an unknown gives an unknown of the shape that it would give, and computes nothing.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from regstream.models.tensor_arguments import tensors_among

#: Results on the meta device, which hold no memory: torch takes ten times as long to find one as to look it up.
_RESULTS: dict[Any, Any] = {}
_MOST_RESULTS = 4096  # a block has some dozens a batch shape


class Unknown(Tensor):
    """A tensor without values. `origins` are the names of the unknowns that it was computed from."""

    origins: frozenset[str]

    @classmethod
    def like(cls, shaped: Tensor, origins: Iterable[str], device: torch.device | None = None) -> "Unknown":
        """Of another tensor's shape, strides and dtype, and its device unless one is given."""
        made: Unknown = Tensor._make_wrapper_subclass(
            cls, shaped.shape, strides=shaped.stride(), dtype=shaped.dtype, device=device or shaped.device
        )
        made.origins = frozenset(origins)
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares other arguments than it passes
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation on shapes alone.

        Raises:
            TypeError: it writes values into a tensor that does not depend on their origins, so that the tensor may be
                known where the values are not.
        """
        del types
        values = [*args, *(kwargs or {}).values()]
        unknown = [value for value in tensors_among(values) if isinstance(value, cls)]
        origins = frozenset().union(*(value.origins for value in unknown))
        if written := _written(func, args, kwargs or {}):
            if not all(isinstance(value, cls) and value.origins == origins for value in written):
                raise TypeError(f"{func} writes unknown values into a tensor of other origins")
            return written[0] if len(written) == 1 else tuple(written)
        device = unknown[0].device
        return _map(_shape_of_result(func, args, kwargs or {}), lambda tensor: cls.like(tensor, origins, device))


def _shape_of_result(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation returns, on the meta device: found once for all arguments of the same shapes and values."""
    key = (func, _as_key(args), _as_key(tuple(kwargs.items())))
    if len(_RESULTS) > _MOST_RESULTS:
        _RESULTS.clear()
    if key not in _RESULTS:
        _RESULTS[key] = func(*map(_on_meta, args), **{name: _on_meta(value) for name, value in kwargs.items()})
    return _RESULTS[key]


def _as_key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return tuple(map(_as_key, value)) if isinstance(value, list | tuple) else (type(value), value)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    places = [argument for argument in func._schema.arguments if argument.alias_info and argument.alias_info.is_write]
    positions = {argument.name: index for index, argument in enumerate(func._schema.arguments)}
    return [
        args[positions[place.name]] if positions[place.name] < len(args) else kwargs[place.name] for place in places
    ]


def _on_meta(value: Any) -> Any:
    """The same shape on the meta device; a device that is asked for is the meta device too."""
    if isinstance(value, torch.device):
        return torch.device("meta")
    return _map(value, lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"))


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(item, change) for item in value)
    return value
