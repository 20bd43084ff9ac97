"""What these tests share."""

import pytest

import merging
from disk import no_waiting_for_the_disk

__all__ = ["device", "no_waiting_for_the_disk"]


@pytest.fixture(autouse=True, params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this folder on the CPU, and the same test on a GPU where there is one."""
    monkeypatch.setattr(merging, "device", request.param)
    return str(request.param)
