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
    """Every test of this folder on the CPU and on a GPU where there is one; if marked so, on a simulated one too."""
    monkeypatch.setattr(merging, "device", request.param)
    with simulated_device() if request.param == NAME else nullcontext():
        yield str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test marked `simulated` its first and everyday cases run there: slow ones are more families and settings."""
    left_out = {id(item) for item in items if isinstance(item, pytest.Function) and _is_left_out(item)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


def _is_left_out(item: pytest.Function) -> bool:
    if not hasattr(item, "callspec") or item.callspec.params.get("device") != NAME:
        return False
    num_slow = sum(mark.name == "slow" for mark in item.callspec.marks)
    return item.get_closest_marker("simulated") is None or num_slow > 1  # one of them is the device's own
