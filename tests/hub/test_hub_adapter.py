"""Adapters from the hub: their files come when they are read, by the commit that was settled on."""

import json
from pathlib import Path

import pytest

from adapters import make_adapters
from hub_server import Hub, put_on
from merging import Merge, make_merge
from regstream.errors import InputError
from regstream.plan import make_plan
from regstream.publish import read_provenance
from regstream.scheduler import run


@pytest.fixture
def local(tmp_path: Path) -> Merge:
    """A merge of adapters, from folders."""
    folder = tmp_path / "local"
    folder.mkdir()
    return make_adapters(make_merge(folder, layers=2, num_rows=4), "llama")


def fetched(hub: Hub) -> list[str]:
    """Whole files that were asked for."""
    return [r.path for r in hub.asked("GET /lfs/.*") if not (r.range or "").startswith("bytes=0-")]


def test_the_same_bytes_as_from_folders(local: Merge, hub: Hub, tmp_path: Path) -> None:
    remote = put_on(hub, local, tmp_path / "remote")
    local.run()
    plan = remote.plan()
    assert fetched(hub) == []
    run(plan)
    assert len(fetched(hub)) == len(set(fetched(hub))) == 1 + 3
    for path in local.output.glob("model*"):
        assert path.read_bytes() == (remote.output / path.name).read_bytes()
    record, commit = read_provenance(remote.output), hub.repos["org/adapter-1"].branches["main"]
    base = f"org/base@{hub.repos['org/base'].branches['main']}"
    assert record["candidates"]["task1"] == {"model": base, "adapter": f"org/adapter-1@{commit}"}
    assert record["identity"]["hub"]["org/adapter-1"] == commit
    assert record["identity"]["candidates"]["task1"]["adapter_model.safetensors"].startswith("hub:")
    card = (remote.output / "README.md").read_text()
    assert f"- **task1**: adapter org/adapter-1 at {commit[:12]} on org/base at " in card
    assert "- org/adapter-2\n" in card


def test_what_does_not_fit_is_told_before_anything_is_fetched(local: Merge, hub: Hub, tmp_path: Path) -> None:
    remote = put_on(hub, local, tmp_path / "remote")
    text = remote.manifest.read_text()
    hub.add("org/whole", local.folders.base)
    remote.manifest.write_text(text.replace('"org/adapter-1"', '"org/whole"'))
    with pytest.raises(InputError, match=r'candidate "task1": org/whole at .*: holds no adapter_config.json; expected'):
        remote.plan()
    remote.manifest.write_text(text)
    config = local.folders.candidates[2] / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 5}))
    hub.add("org/adapter-2", local.folders.candidates[2])
    with pytest.raises(InputError, match=r'candidate "task2": .*rank 5 of adapter_config.json'):
        make_plan(remote.read())
    assert fetched(hub) == []
