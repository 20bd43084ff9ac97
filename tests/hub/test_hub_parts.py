"""Of a part that one candidate gives, only that candidate's shards are downloaded."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from hub_server import Hub, put_on
from merging import make_merge

HEAD = "lm_head.weight"


def split_head(folder: Path) -> None:
    """Store the head in a shard of its own."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-0000{1 + (name == HEAD)}-of-00002.safetensors" for name in tensors}
    for file in sorted(set(weight_map.values())):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_other_candidates_heads_are_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    local = make_merge(tmp_path / "local", layers=1, hidden=16, merge={"method": "average"})
    for folder in (local.folders.base, *local.folders.candidates):
        split_head(folder)
    text = local.manifest.read_text()
    local.manifest.write_text(text.replace("\n[[candidates]]", '[merge.others]\nhead = "task1"\n\n[[candidates]]', 1))
    expected = load_file(local.folders.candidates[1] / "model-00002-of-00002.safetensors")[HEAD]
    remote = put_on(hub, local, tmp_path / "remote")
    remote.manifest.write_text(f"{remote.manifest.read_text()}diagnostics = false\n")
    plan = remote.plan()
    remote.run()
    asked = {r.path for r in hub.asked("GET /lfs/.*") if not (r.range or "").startswith("bytes=0-")}
    assert len(asked) == 3 + 1  # the first shard of each candidate, and the second of one
    written = {name: tensor for file in plan.output.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert written[HEAD].equal(expected)
