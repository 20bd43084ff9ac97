"""Names that a wrapper left its mark on: what torch.compile, DataParallel and FSDP put before or into them.

No model of transformers has modules of these names, so that without them the names are the model's own again.
"""

from collections.abc import Callable, Iterable, Sequence

from regstream.errors import InputError

#: What wrappers call the module that they hold.
_MARKS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: What stands before every name, or is no wrapper's: that of DataParallel, and of a class that keeps a model in itself.
_AROUND = ("module.", "model.")


def unwrapped(names: Iterable[str], is_known: Callable[[Sequence[str]], bool]) -> dict[str, str]:
    """The names by what they are without what wrappers put there; `is_known` tells whether names are a model's own.

    Where there is nothing to take away, or what is left is no model's, the names stay as they are.

    Raises:
        InputError: two names are one without it.
    """
    stored = list(names)
    if is_known(stored) and not any(mark in name.split(".") for name in stored for mark in _MARKS):
        return {name: name for name in stored}
    plain = [".".join(part for part in name.split(".") if part not in _MARKS) for name in stored]
    for around in ("", *_AROUND):
        if not all(name.startswith(around) for name in plain):
            continue
        found = dict[str, str]()
        for before, name in zip(stored, (name.removeprefix(around) for name in plain), strict=True):
            if found.setdefault(name, before) != before:
                raise InputError(f"{found[name]} and {before} are the same tensor, {name}, but for a wrapper's mark")
        if is_known(list(found)):
            return found
    return {name: name for name in stored}


def prefixed(names: Iterable[str], blocks: str) -> str:
    """What to say of tensors of blocks that have something before their names; nothing where there are none."""
    found = next((name for name in names if f".{blocks}." in name), None)
    if found is None:
        return ""
    before = found[: found.index(f".{blocks}.") + 1]
    return f'; found {found}: save the model without what wraps it, so that no name begins with "{before}"'
