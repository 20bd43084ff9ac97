"""Removes what torch.compile, DataParallel and FSDP add to parameter names.

No model of transformers has modules of these names, so that the names without them are the model's own.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from regstream.errors import InputError

#: The wrappers' names of the wrapped module.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: Prefixes of every name: of DataParallel, and of a class with the model as an attribute.
_PREFIXES = ("module.", "model.")


def strip_wrapper_names(
    names: Iterable[str], is_known: Callable[[Sequence[str]], bool], is_exact: Callable[[Sequence[str]], bool]
) -> dict[str, str]:
    """The stored names by the model's own.

    `is_exact` tells whether names are the model's own, `is_known` whether they are read as such.

    Without wrappers, or where the rest of the names is no model's either, the names stay as they are.

    Raises:
        InputError: two names become the same.
    """
    stored = list(names)
    if is_known(stored) and not any(mark in name.split(".") for name in stored for mark in _WRAPPERS):
        return {name: name for name in stored}
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in stored]
    for accepts, prefix in product((is_exact, is_known), ("", *_PREFIXES)):
        if not all(name.startswith(prefix) for name in plain):
            continue
        found = dict[str, str]()
        for before, name in zip(stored, (name.removeprefix(prefix) for name in plain), strict=True):
            if found.setdefault(name, before) != before:
                raise InputError(
                    f"{found[name]} and {before} are the same tensor, {name}, without the names of wrappers"
                )
        if accepts(list(found)):
            return found
    return {name: name for name in stored}


def prefix_hint(names: Iterable[str], blocks: str) -> str:
    """An error's hint where the names of blocks have an unknown prefix; else an empty string."""
    found = next((name for name in names if f".{blocks}." in name), None)
    if found is None:
        return ""
    before = found[: found.index(f".{blocks}.") + 1]
    return f'; found {found}: save the model without what wraps it, so that no name begins with "{before}"'
