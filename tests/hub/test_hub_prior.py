"""A prior on the hub: the same bytes as from a folder, at the commit of the record."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from hub_server import Hub, put_on
from merging import make_merge


def test_a_prior_of_the_hub_is_that_of_a_folder(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    keys = {"method": "regfilter", "prior": "model", "prior_model": "prior"}
    local = make_merge(tmp_path / "local", layers=1, candidates=2, num_rows=4, merge=keys)
    prior = shutil.copytree(local.folders.candidates[1], tmp_path / "local" / "prior")
    hub.add("org/prior", prior)
    remote = put_on(hub, local, tmp_path / "remote")
    remote.manifest.write_text(remote.manifest.read_text().replace('"prior"\n', '"org/prior"\n'))
    plan = remote.plan()

    def size(*folders: Path) -> int:
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))

    assert plan.downloads.diagnostics_bytes == size(
        local.folders.base
    )  # the result takes its config and tokenizer alone
    assert plan.downloads.download_bytes == size(prior, *local.folders.candidates, local.folders.base)
    remote.run()
    local.run()
    for file in local.output.glob("*.safetensors"):
        expected, found = load_file(file), load_file(remote.output / file.name)
        assert all(found[name].equal(tensor) for name, tensor in expected.items())
    record = json.loads((remote.output / "regstream.json").read_text())
    assert record["prior_model"] == f"org/prior@{record['identity']['hub']['org/prior']}"
    assert "org/prior" in (remote.output / "README.md").read_text()
