"""The client in this process, or the command line in one of its own, turned to a hub on localhost, with a cache of
its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http, close_session

import checkpoints
import processes
from hub_server import Hub, put_on, serving
from merging import Merge, make_merge
from regstream.hub import fetch

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache."""
    return tmp_path / "hf" / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with nothing on it."""
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        close_session()


@pytest.fixture
def data_sets(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that reads data sets, turned to the hub as well."""
    from datasets import config

    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(cache.parent / "assets"))
    monkeypatch.setattr(config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(config, "HF_MODULES_CACHE", str(cache.parent / "modules"))
    # After every pass over a data set it sleeps, for the sake of interpreters that end right then.
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture
def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """A person's, turned to the hub."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return plain | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache.parent)}


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """Call it, in a process that is forked from this one and so turned to the hub as this one is."""

    def call(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        return processes.run([*arguments], environment | variables)

    return call


@pytest.fixture
def new_interpreter(environment: dict[str, str]) -> Command:
    """Call it in an interpreter that reads the environment as it imports the client."""

    def call(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "regstream_cli", *map(str, arguments)],
            env=environment | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return call


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client does not wait between attempts; for how long it would have."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    monkeypatch.setattr(_http, "time", clock)
    monkeypatch.setattr(fetch, "time", clock)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    return waits


@pytest.fixture(scope="session")
def local_once(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    """A merge of four from folders, done, about a block in a shard."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "SMALL_SHARD_BYTES", 600_000)
        sizes: dict[str, Any] = {"candidates": 4, "layers": 8, "hidden": 128, "sharded": True, "num_rows": 4}
        evaluation = '[candidates.evaluation]\npath = "held-out-{}.jsonl"\nfield = "input_ids"\nrows = 2\n'
        merge = make_merge(folder, candidate=evaluation.format, **sizes)
        for rows in folder.glob("task*.jsonl"):
            backwards = [{"input_ids": json.loads(row)["input_ids"][::-1]} for row in rows.read_text().splitlines()]
            held_out = rows.with_name(rows.name.replace("task", "held-out-"))
            held_out.write_text("".join(f"{json.dumps(row)}\n" for row in backwards))
    merge.run()
    return merge


@pytest.fixture
def remote(local_once: Merge, hub: Hub, tmp_path: Path) -> Merge:
    """The same merge from the hub."""
    return put_on(hub, local_once, tmp_path / "remote")
