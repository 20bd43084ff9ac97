"""What a body is called with beside hidden states: positions, masks and features of images that its outer model made.

Rows of token ids alone need no record of them: the body makes its own from the mask.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from regstream.storage.argument_store import ArgumentStore

BodyArguments = Mapping[str, Any]
_HIDDEN = ("inputs_embeds", "hidden_states")
_INPUT_IDS = "input_ids"


@contextmanager
def recorded_arguments(body: nn.Module) -> Iterator[dict[str, Any]]:
    """Record the arguments of a body's call within the context, by name."""
    recorded: dict[str, Any] = {}
    parameters = signature(body.forward)
    rest = [p.name for p in parameters.parameters.values() if p.kind is Parameter.VAR_KEYWORD]

    def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = dict(parameters.bind(*args, **kwargs).arguments)
        for name in rest:
            found.update(found.pop(name, {}))
        recorded.update(found)

    hook = body.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield recorded
    finally:
        hook.remove()


def without_hidden(recorded: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the argument that takes hidden states, and all others but the token ids that they are made of.

    Raises:
        ValueError: there is none.
    """
    name = next((name for name in _HIDDEN if isinstance(recorded.get(name), Tensor)), None)
    if name is None and isinstance(recorded.get(_INPUT_IDS), Tensor):
        name = _HIDDEN[0]
    if name is None:
        raise ValueError(f"it is called with {', '.join(recorded)}, and no hidden states")
    return name, {key: value for key, value in recorded.items() if key not in (name, _INPUT_IDS)}


def encode_arguments(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Arguments as JSON; their tensors go into `tensors`, by the keys that stand for them.

    Raises:
        ValueError: a value is of a type that cannot be stored.
    """
    match value:
        case Tensor():
            key = str(len(tensors))
            tensors[key] = value.detach().cpu().contiguous()
            return {"tensor": key}
        case None | bool() | int() | float() | str():
            return {"value": value}
        case list() | tuple():
            return {"list": [encode_arguments(entry, tensors) for entry in value]}
        case dict():
            return {"table": {str(key): encode_arguments(entry, tensors) for key, entry in value.items()}}
    raise ValueError(f"a {type(value).__name__} among its arguments cannot be stored")


def decode_arguments(encoded: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """The value that `encode_arguments` encoded, its tensors on a device."""
    match encoded:
        case {"tensor": key}:
            return tensors[key].to(device)
        case {"list": entries}:
            return [decode_arguments(entry, tensors, device) for entry in entries]
        case {"table": entries}:
            return {key: decode_arguments(entry, tensors, device) for key, entry in entries.items()}
    return encoded["value"]


def store_arguments(store: ArgumentStore, name: str, index: int, arguments: BodyArguments, *, stack: int) -> None:
    """Store what the body of a stack was called with for a batch of the rows of a name; durable when this returns."""
    tensors: dict[str, Tensor] = {}
    store.write(name, index, encode_arguments(arguments, tensors), tensors, stack=stack)


def load_arguments(store: ArgumentStore, name: str, index: int, device: torch.device, *, stack: int) -> BodyArguments:
    """What `store_arguments` stored, on a device.

    Raises:
        CorruptActivations: it is missing, or differs from what was stored.
    """
    structure, tensors = store.read(name, index, stack=stack)
    arguments: BodyArguments = decode_arguments(structure, tensors, device)
    return arguments
