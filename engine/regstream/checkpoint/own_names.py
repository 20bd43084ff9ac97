"""The model's own names of the tensors in a checkpoint."""

from collections.abc import Mapping

from regstream.checkpoint.wrapper_names import prefix_hint
from regstream.errors import InputError
from regstream.models.architecture.architecture import Architecture


def own_names(architecture: Architecture, stored: Mapping[str, object]) -> dict[str, str]:
    """The names in the files of the tensors of the architecture's model, by the model's own.

    Raises:
        InputError: a tensor is converted when it is loaded, two are the same, or the first block has none.
    """
    names: dict[str, str] = {}
    for name in stored:
        own = architecture.model_name(name)
        if not architecture.has_parameter(own):
            continue
        if own not in architecture.piece_names and (conversion := architecture.conversion(name)):
            what = "experts in this form" if ".experts." in own else "files in this form"
            raise InputError(
                f"tensor {name}: transformers makes {own} of it and others when it loads them ({conversion}); {what}"
                " cannot be merged yet"
            )
        if own in names:
            raise InputError(f"{names[own]} and {name} are the same tensor, {own}, of a {architecture.model_class}")
        names[own] = name
    first = f"{architecture.blocks}.0."
    if not any(own.startswith(first) for own in names):
        found = f"; found {next(iter(stored))} and others" if stored else "; it holds no tensor at all"
        found = prefix_hint(stored, architecture.blocks) or found
        raise InputError(f"no tensor named {first}*, as a {architecture.name} model has{found}")
    return names
