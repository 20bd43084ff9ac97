"""What these tests share."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

import merging
from disk import no_waiting_for_the_disk
from simulated_device import NAME, simulated_device

__all__ = ["device", "no_waiting_for_the_disk"]


@pytest.fixture(
    autouse=True,
    params=["cpu", pytest.param(NAME, marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test of this folder on the CPU and on a simulated device, and the same test on a GPU where there is one."""
    monkeypatch.setattr(merging, "device", request.param)
    with simulated_device() if request.param == NAME else nullcontext():
        yield str(request.param)
