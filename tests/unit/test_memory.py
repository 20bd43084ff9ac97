"""Measuring memory: what was taken within the context is seen, though it is given back before the end."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from regstream.device import memory
from regstream.device.accelerator_kinds import is_available
from regstream.device.memory import measured_peak
from regstream.device.process_memory import resident_bytes

SIZE = 64 << 20


def test_a_peak_is_seen_though_it_has_passed() -> None:
    before = resident_bytes()
    with measured_peak() as peak:
        taken = np.ones(SIZE, dtype=np.uint8)
        del taken
    assert peak.num_bytes >= before + 0.9 * SIZE
    assert resident_bytes() < before + 0.5 * SIZE
    assert peak.seconds > 0


def test_where_the_system_keeps_no_peak_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    is_taken, sampled = threading.Event(), threading.Event()

    def counted() -> int:
        if not is_taken.is_set():
            return 0
        sampled.set()
        return 1 << 60

    def refuse(path: Path, text: str) -> int:
        raise PermissionError(path, text)

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(memory, "resident_bytes", counted)
    with measured_peak() as peak:
        is_taken.set()
        assert sampled.wait(60)
        is_taken.clear()
    assert peak.num_bytes == 1 << 60


def test_an_earlier_peak_is_forgotten() -> None:
    taken = np.ones(SIZE, dtype=np.uint8)
    del taken
    with measured_peak() as peak:
        pass
    assert peak.num_bytes < resident_bytes() + 0.5 * SIZE


def test_an_error_within_passes_through() -> None:
    with pytest.raises(KeyError), measured_peak():
        raise KeyError


def test_the_cpu_has_no_peak_of_its_own_and_is_always_there() -> None:
    with measured_peak(torch.device("cpu")) as peak:
        pass
    assert peak.device_bytes == 0
    assert is_available(torch.device("cpu"))
    assert not is_available(torch.device("cuda:99"))
