"""The manifests of the paper's runs, and an empty cache of the hub's client."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The manifests, where they can be changed."""
    return shutil.copytree(MANIFESTS, tmp_path / "manifests") / "paper"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, with no network behind it."""
    folder = tmp_path / "hf" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def ample_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that any of these merges fits on."""
    give_ample_disk(monkeypatch)


def give_ample_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every disk be a large one."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 50, used=0, free=1 << 50))
