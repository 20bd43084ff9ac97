"""Repositories of the hub: resolved to a commit, listed, or refused in one line."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import Fault, Hub, stop
from regstream.hub.errors import HubError
from regstream.hub.repository import open_repository, revision_change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "train.py"):
        (folder / name).write_text(name)
    return folder


def test_a_revision_is_resolved_to_its_commit(hub: Hub, folder: Path) -> None:
    first = hub.add("org/model", folder)
    (folder / "config.json").write_text("another")
    second = hub.add("org/model", folder, branch="refs/pr/1")
    assert open_repository("org/model", None).commit == first
    assert open_repository("org/model", "main").commit == first
    assert open_repository("org/model", "refs/pr/1").commit == second
    assert open_repository("org/model", second).commit == second
    assert open_repository("org/model", "main", commit=second).commit == second


def test_only_what_is_asked_for_is_fetched(hub: Hub, folder: Path) -> None:
    hub.add("org/model", folder)
    repository = open_repository("org/model", None)
    repository.fetch("*.json", "*.absent")
    repository.fetch("*.json")
    assert sorted(path.name for path in repository.folder.iterdir()) == ["config.json", "tokenizer.json"]
    assert len(hub.asked("GET /org/model/resolve/.*")) == 2
    assert hub.asked("GET /lfs/.*") == []


def test_a_revision_that_moved_is_noticed(hub: Hub, folder: Path) -> None:
    first = hub.add("org/model", folder)
    assert revision_change("org/model", "main", first) is None
    (folder / "config.json").write_text("another")
    second = hub.add("org/model", folder)
    assert revision_change("org/model", None, first) == f"at {second}"
    assert revision_change("org/model", first, first) is None
    del hub.repos["org/model"].branches["main"]
    assert revision_change("org/model", "main", first) == "gone"


@pytest.mark.parametrize(
    ("repo", "revision", "line"),
    [
        ("org/absent", None, "org/absent@main: not on the hub, or private: no token is set; set HF_TOKEN"),
        ("org/private", None, "org/private@main: not on the hub, or private: no token is set"),
        ("org/gated", None, "org/gated@main: gated on the hub: no token is set; set HF_TOKEN; request access"),
        ("org/model", "v9", "org/model@v9: the hub has no such revision"),
        ("org/model", "0" * 40, f"org/model at {'0' * 40}: the hub has no such revision"),
        ("org/empty", None, "holds no config.json; expected a checkpoint"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(hub: Hub, folder: Path, repo: str, revision: str | None, line: str) -> None:
    hub.add("org/model", folder)
    hub.add("org/private", folder, token="secret")
    hub.add("org/gated", folder, token="secret")
    hub.repos["org/gated"].gated = True
    (folder / "config.json").unlink()
    hub.add("org/empty", folder)
    with pytest.raises(HubError) as caught:
        open_repository(repo, revision)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_opens_and_another_does_not(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/private", folder, token="secret")
    monkeypatch.setenv("HF_TOKEN", "other")
    with pytest.raises(HubError, match="not on the hub, or private: HF_TOKEN has no access to it"):
        open_repository("org/private", None)
    monkeypatch.setenv("HF_TOKEN", "secret")
    open_repository("org/private", None).fetch("config.json")


def test_asked_to_wait_it_waits(hub: Hub, folder: Path, impatient: list[float]) -> None:
    hub.add("org/model", folder)
    hub.faults = [
        Fault("GET /api/.*/revision/.*", status=429, headers={"Retry-After": "3"}),
        Fault("GET /api/.*/tree/.*", status=503),
    ]
    open_repository("org/model", None)
    assert impatient == [4, 1]


def test_offline_the_cache_answers_alone(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", folder)
    online = open_repository("org/model", None)
    online.fetch("*.json", "*.safetensors")
    stop(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = open_repository("org/model", "main")
    assert offline.commit == online.commit
    assert offline.files == {name: online.files[name] for name in offline.files}
    assert offline.files.keys() == {"config.json", "tokenizer.json", "model.safetensors"}
    assert revision_change("org/model", "main", online.commit) is None
    for repo, revision in (("org/other", None), ("org/model", "v9"), ("org/model", "0" * 40)):
        with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE=1 forbids network access"):
            open_repository(repo, revision)
