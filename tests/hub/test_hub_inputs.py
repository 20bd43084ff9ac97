"""What checkpoints of the hub hold beyond a model: accounted for as folders' are, and nothing fetched to tell it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from altered_checkpoints import write_adapter
from hub_server import Hub, put_on
from merging import Merge, make_merge, without_diagnostics
from regstream.api import verify
from regstream.errors import InputError
from regstream.runtime.scheduler import run


@pytest.fixture
def local(tmp_path: Path) -> Merge:
    """A merge of checkpoints with tied heads, from folders."""
    (tmp_path / "local").mkdir()
    sizes = {"candidates": 2, "layers": 1, "hidden": 16, "merge": {"method": "average"}}
    return make_merge(tmp_path / "local", "llama-tied", **sizes)  # type: ignore[arg-type]


def fetched(hub: Hub) -> list[str]:
    """Whole files that were asked for."""
    return [r.path for r in hub.asked("GET /lfs/.*") if not (r.range or "").startswith("bytes=0-")]


def with_head(folder: Path, moved_by: float) -> None:
    """Store a head in a shard of its own."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    head = tensors["model.embed_tokens.weight"] + moved_by
    save_file({"lm_head.weight": head}, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    weight_map["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.slow
def test_heads_that_are_tied_are_compared_once_they_are_there(local: Merge, hub: Hub, tmp_path: Path) -> None:
    local.run()
    with_head(local.folders.candidates[0], 0.0)
    remote = put_on(hub, local, tmp_path / "remote")
    without_diagnostics(remote.manifest)
    plan = remote.plan()
    assert fetched(hub) == []
    run(plan)
    assert len(fetched(hub)) == len(set(fetched(hub))) == 2 + 1
    for path in local.output.glob("model*"):
        assert path.read_bytes() == (remote.output / path.name).read_bytes()


def test_a_head_that_differs_is_refused_before_anything_is_written(local: Merge, hub: Hub, tmp_path: Path) -> None:
    with_head(local.folders.candidates[0], 1e-3)
    remote = put_on(hub, local, tmp_path / "remote")
    plan = remote.plan()
    assert fetched(hub) == []
    with pytest.raises(InputError, match=r'"task0": .*lm_head.weight differs from .*tied_head = "untie"'):
        run(plan)
    assert not list(remote.output.glob("*.safetensors"))


@pytest.mark.slow
def test_what_the_base_holds_beyond_the_model_is_carried_over(local: Merge, hub: Hub, tmp_path: Path) -> None:
    base = local.folders.base
    held = {"mtp.fc.weight": torch.randn(4, 4)}
    save_file(load_file(base / "model.safetensors") | held, base / "model.safetensors", {"format": "pt"})
    for name in ("tekken.json", "LICENSE", "video_preprocessor_config.json", "1_Pooling/config.json", "spiece.model"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    (base / "modeling_own.py").write_text("raise SystemExit")
    remote = put_on(hub, local, tmp_path / "remote")
    plan = remote.plan()
    run(plan)
    assert verify(remote.output).problems == ()
    assert torch.equal(load_file(remote.output / plan.steps[-1].shard)["mtp.fc.weight"], held["mtp.fc.weight"])
    assert (remote.output / "tekken.json").is_file()
    assert (remote.output / "1_Pooling" / "config.json").is_file()
    assert [line for line in plan.warnings if line.startswith("base: left out: modeling_own.py: ")]


def test_a_candidate_given_twice_is_told_by_the_hubs_digests(local: Merge, hub: Hub, tmp_path: Path) -> None:
    first, second = local.folders.candidates
    (second / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes())
    plan = put_on(hub, local, tmp_path / "remote").plan()
    assert fetched(hub) == []
    assert 'candidate "task1": its weights equal those of candidate "task0", which thus counts twice' in plan.warnings


def test_an_adapter_that_is_named_as_a_model_is_called_one(local: Merge, hub: Hub, tmp_path: Path) -> None:
    folder = local.folders.candidates[0]
    for path in folder.iterdir():
        path.unlink()
    write_adapter(folder / "made", "model.layers.0.mlp.up_proj", 16, 32)
    for path in (folder / "made").iterdir():
        path.rename(folder / path.name)
    remote = put_on(hub, local, tmp_path / "remote")
    with pytest.raises(InputError, match=r'holds no config.json; .*, found adapter_config.json; write adapter = "org/'):
        remote.plan()
