"""Adapters from the hub: their files come when they are read, by the commit that was settled on."""

import json
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from adapters import make_adapters
from disk_bounds import sampled, weights_bytes, with_disk
from hub_server import Hub, put_on
from merging import Merge, make_merge
from regstream.errors import InputError
from regstream.output.record import read_provenance
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run


@pytest.fixture
def local(tmp_path: Path) -> Merge:
    """A merge of adapters, from folders."""
    folder = tmp_path / "local"
    folder.mkdir()
    return make_adapters(make_merge(folder, layers=2, num_rows=4), "llama")


def fetched(hub: Hub) -> list[str]:
    """Whole files that were asked for."""
    return [r.path for r in hub.asked("GET /lfs/.*") if not (r.range or "").startswith("bytes=0-")]


@pytest.mark.slow
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
    assert record["identity"]["candidates"]["task1"]["adapter_model.safetensors"].keys() == {"hub"}
    card = (remote.output / "README.md").read_text()
    assert f"- **task1**: adapter org/adapter-1 at {commit[:12]} on org/base at " in card
    assert "- org/adapter-2\n" in card


@pytest.mark.slow
def test_on_a_disk_with_no_room_for_their_base(
    hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SMALL_SHARD_BYTES", 600_000)  # about a block
    (tmp_path / "local").mkdir()
    sizes: dict[str, Any] = {"candidates": 4, "layers": 8, "hidden": 128, "sharded": True, "num_rows": 4}
    local = make_adapters(make_merge(tmp_path / "local", **sizes), "llama")
    remote = put_on(hub, local, tmp_path / "remote")
    local.run()
    base = weights_bytes(local.folders.base)
    disk = base + int(0.9 * base)  # the result and less than the base
    with_disk(remote, disk)
    plan = remote.plan()
    assert plan.downloads.repeated_bytes == 0
    with sampled(cache.parent, remote.output) as seen:
        run(plan)
    assert plan.downloads.peak_disk_bytes * 0.7 < max(seen) <= disk
    assert len(seen) > 100
    assert len(fetched(hub)) == len(set(fetched(hub)))
    assert not list(cache.rglob("*.safetensors"))
    for path in local.output.glob("model*"):
        assert path.read_bytes() == (remote.output / path.name).read_bytes()


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
    with pytest.raises(InputError, match=r'candidate "task2": .*of rank 5 in adapter_config.json'):
        make_plan(remote.read())
    assert fetched(hub) == []
