"""An architecture is derived in bounded memory, whatever the model's size."""

import os
import sys

import pytest

from bench import derivation
from peak import measure

GIB = 1 << 30


@pytest.mark.slow
def test_70b_within_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    taken = measure([str(word) for word in derivation.command("llama-3.1-70b")])
    assert taken.code == 0
    # Torch and transformers are a third of it; weights of one block alone would be more.
    assert GIB // 4 < taken.peak_bytes < GIB
