"""The paper's runs as they stand: rows drawn from data sets of the hub once, then planned without any network."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from hub_server import Hub
from paper.conftest import MANIFESTS, give_ample_disk
from paper.fake_hub_cache import fill, write_rows
from paper.published import IMAGES
from paper.test_paper_plans import from_files, planned, with_resources
from regstream.data.dataset_sampler import DatasetSampler
from regstream.manifest.read_manifest import read_manifest

#: The library that draws rests for some seconds after each drawing.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("data_sets")]

ON_THE_HUB = ["clip-b32-20", "mergebench-llama-3.2-3b"]  # which name every data set


@pytest.fixture
def rows(hub: Hub, tmp_path: Path) -> Path:
    """All data sets, on the hub and in a folder."""
    folder = tmp_path / "rows"
    revisions = {images.dataset: images.revision for images in IMAGES.values()}
    for run in ON_THE_HUB:
        manifest = read_manifest(MANIFESTS / "paper" / f"{run}.toml")
        write_rows(folder, manifest)
        for candidate in manifest.candidates:
            assert candidate.calibration is not None
            name = str(candidate.calibration.dataset)
            hub.add(f"datasets/{name}", folder / name, branch=revisions.get(name) or "main")
    return folder


@pytest.mark.parametrize("run", ON_THE_HUB[1:])
def test_a_run_is_planned_offline_from_rows_that_were_drawn(
    run: str, rows: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MANIFESTS / "paper" / f"{run}.toml"
    manifest, drawing = read_manifest(source), DatasetSampler()
    for candidate in manifest.candidates:
        assert candidate.calibration is not None
        drawing.sample(candidate.calibration, candidate.calibration.field, manifest.merge.seed)
    fill(cache, manifest)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    give_ample_disk(monkeypatch)
    text = with_resources(source.read_text()).replace('"../classes', f'"{MANIFESTS}/classes')
    records = {}
    for name, content in (("hub", text), ("files", from_files(text, rows))):
        path = tmp_path / name / "paper" / "manifest.toml"
        path.parent.mkdir(parents=True)
        path.write_text(content)
        records[name] = planned(path)
        for step in records[name]["steps"]:
            del step["projected_bytes"]  # what the process holds anyway is not the same twice
    assert records["hub"]["steps"] == records["files"]["steps"]
    assert records["hub"]["warnings"] == records["files"]["warnings"]


def test_test_images_come_with_their_labels(rows: Path) -> None:
    for candidate in read_manifest(MANIFESTS / "paper" / "clip-b32-20.toml").candidates:
        held_out = candidate.evaluation
        assert held_out is not None
        if candidate.name in ("food101", "fer2013", "svhn"):
            kept = pq.read_table(DatasetSampler().sample(held_out, held_out.field, 0, held_out.label))
            assert kept.column_names == [held_out.field, held_out.label]
            assert kept.column(held_out.label).to_pylist() == [0, 1, 0]
