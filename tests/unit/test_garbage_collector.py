"""No collection runs while libraries are imported; a process of its own never looks at what they define."""

import subprocess
import sys

import pytest

SCRIPT = """
import gc, sys, weakref
from regstream.device.garbage_collector import exempt_imports, importing

class Node:
    def __init__(self):
        self.self = self

if {exempts}:
    exempt_imports()
with importing():
    assert not gc.isenabled()
    defined = [Node() for _ in range(9)]
assert gc.isenabled()
frozen = gc.get_freeze_count()
made = weakref.ref(Node())
gc.collect()
assert made() is None
print(frozen)
"""


@pytest.mark.parametrize("exempts", [False, True])
def test_collections_pause_and_then_pass_over_what_was_imported(exempts: bool) -> None:
    script = SCRIPT.format(exempts=exempts)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (int(done.stdout) > 0) == exempts


def test_an_import_that_fails_leaves_collections_on() -> None:
    script = """
import gc
from regstream.device.garbage_collector import importing
try:
    with importing():
        raise ImportError
except ImportError:
    print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
