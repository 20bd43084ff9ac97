"""Python's garbage collector while large libraries are imported: what an import defines is no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_settings = {"exempts_imports": False}


def exempt_imports() -> None:
    """Have collections pass over whatever lives when an import ends, from then on: each would take a fifth of a second.

    For a process of its own; in a larger program, garbage of that moment would stay.
    """
    _settings["exempts_imports"] = True


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries within this context: without collections that takes three quarters of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if _settings["exempts_imports"]:
            gc.freeze()


def import_modules(*names: str) -> None:
    """Import modules and the large libraries that they need, as within `importing`."""
    with importing():
        for name in names:
            import_module(name)
