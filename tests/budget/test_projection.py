"""What was projected beside what the operating system counted, in processes of their own, at published widths."""

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import checkpoints
from bench import workload
from bench.workload import Workload
from merging import make_merge
from regstream.errors import ManifestError
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from synthetic import checkpoint

MERGE = [sys.executable, "-c", "from regstream_cli.app import main; main()", "run"]
# Batches large enough that what libraries take, which is a bound and differs from run to run, is not most of it.
SHAPES = [
    Workload(shape="smollm2-135m", blocks=2, rows=32, length=256, batch_rows=16),
    Workload(shape="clip-vit-b-32", blocks=2, rows=128, batch_rows=64, dtype="float32"),
]


def ratios(manifest: Path) -> dict[str, float]:
    """What was projected beside what a run took, step by step."""
    subprocess.run([*MERGE, str(manifest)], check=True, capture_output=True)
    steps = json.loads((manifest.parent / "merged" / "regstream.measured.json").read_text())["steps"]
    return {step["name"]: step["projected_bytes"] / step["peak_bytes"] for step in steps}


_MAKING = threading.Lock()  # a model without weights is built under settings of the whole process


def make_here(folder: Path, module: str, *options: str) -> int:
    """Have a module write a folder in this process, which has its libraries imported."""
    with _MAKING:
        if not folder.exists():
            importlib.import_module(module).main([*options, str(folder)])
    return 0


@pytest.fixture(scope="module", autouse=True)
def _work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Checkpoints of one shape are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "WORK", tmp_path_factory.mktemp("work"))
        patch.setattr(workload, "make_folder", make_here)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("merge", SHAPES, ids=lambda merge: merge.shape)
def test_no_step_takes_more_than_projected_nor_much_less(tmp_path: Path, merge: Workload) -> None:
    found = ratios(merge.manifest(tmp_path / "merge"))
    assert all(1.0 <= ratio <= 1.25 for ratio in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "most"),
    [
        ("featcal", (), 1.25),
        ("regfilter", (), 1.45),  # which inputs a pass begins from is found as it runs; all of them are counted
        (
            "regfilter",
            ("teacher = 0.0", 'filter = "participation"'),
            1.45,
        ),  # LAPACK touches less than the workspace it asks for
    ],
)
def test_nor_does_any_other_regression(tmp_path: Path, method: str, options: tuple[str, ...], most: float) -> None:
    found = ratios(replace(SHAPES[0], method=method, options=options).manifest(tmp_path / "merge"))
    assert all(1.0 <= ratio <= most for ratio in found.values()), found


@pytest.mark.slow
def test_nor_does_one_of_adapters(tmp_path: Path) -> None:
    from adapters import make_adapter

    merge = replace(SHAPES[0], dtype="float32")  # several times as fast where there are no bfloat16 units
    manifest = merge.manifest(tmp_path / "merge")
    base, *candidates = merge.checkpoints()
    text = manifest.read_text()
    for index, candidate in enumerate(candidates):
        folder = make_adapter(base, tmp_path / f"adapter-{index}", seed=index, target_modules="all-linear", r=64)
        text = text.replace(f'model = "{candidate}"', f'adapter = "{folder}"')
    manifest.write_text(text)
    found = ratios(manifest)
    assert all(1.0 <= ratio <= 1.25 for ratio in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_masks_and_whole_scores_are_projected(tmp_path: Path, family: checkpoints.Family) -> None:
    merge = make_merge(tmp_path, family, layers=2, candidates=1, dtype=torch.bfloat16, calibration="batch_rows = 4")
    rows = checkpoints.random_rows(checkpoints.VOCABULARY, [1600, 1500, 1400, 1300], seed=0)
    checkpoints.write_token_rows(tmp_path / "task0.jsonl", rows)
    found = ratios(merge.manifest)
    assert all(1.0 <= ratio <= 1.3 for ratio in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ties", "ace", "swudi"])
def test_a_method_without_data_takes_no_more_than_projected(tmp_path: Path, method: str) -> None:
    merge = make_merge(tmp_path, layers=1, hidden=1024, candidates=2, merge={"method": method})
    found = ratios(merge.manifest)
    assert all(1.0 <= ratio <= 1.35 for ratio in found.values()), found


def hollow(folder: Path, *, candidates: int, device: str, memory: str) -> Path:
    """A manifest for 8B checkpoints that hold no weights."""
    checkpoint.main([str(folder / "model"), "--shape", "llama-3.1-8b", "--hollow"])
    save_file({"input_ids": torch.zeros(4, 64, dtype=torch.long)}, folder / "rows.safetensors")
    text = '[merge]\nmethod = "regmean++"\nbase = "model"\noutput = "merged"\n'
    for index in range(candidates):
        text += f'[[candidates]]\nname = "task{index}"\nmodel = "model"\n'
        text += '[candidates.calibration]\npath = "rows.safetensors"\n'
    (folder / "manifest.toml").write_text(text + f'[resources]\ndevice = "{device}"\n{memory}\n')
    return folder / "manifest.toml"


def plan_of(folder: Path, *, candidates: int = 2, device: str = "cuda", memory: str = 'device_memory = "8GiB"') -> Plan:
    folder.mkdir()
    manifest = hollow(folder, candidates=candidates, device=device, memory=memory)
    return make_plan(read_manifest(manifest), for_this_machine=False)


def test_a_merge_is_planned_from_headers_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "here")
    blocks = [plan.projected_bytes(step, "device") for step in plan.steps if step.kind == "block"]
    assert len(set(blocks)) == 1
    assert 3 * 2**30 < blocks[0] < 4.5 * 2**30
    plan.check_memory()
    # Neither more candidates nor an accelerator's own memory change what it needs; the host holds but little.
    assert plan_of(tmp_path / "more", candidates=8).projected_bytes(plan.peak_step, "device") == blocks[0]
    assert plan.projected_bytes(plan.peak_step) - plan.runtime_bytes < 2**28
    with pytest.raises(ManifestError, match=r'device "cuda": 0 CUDA devices found; .* with its device_memory'):
        plan_of(tmp_path / "unknown", memory="")


def test_less_memory_means_more_passes_until_no_group_fits(tmp_path: Path) -> None:
    sizes = {"4GiB": 1, "3GiB": 2, "2.25GiB": 4}
    plan = plan_of(tmp_path / "here")
    for size, passes in sizes.items():
        asked = plan.manifest.resources.model_copy(update={"device_memory": int(float(size[:-3]) * 2**30)})
        less = replace(plan, manifest=plan.manifest.model_copy(update={"resources": asked}))
        assert len(less.passes(less.peak_step)) <= passes, size
        assert less.projected_bytes(less.peak_step, "device") <= less.budgets["device"] or passes == 4


@pytest.mark.slow
def test_candidates_are_read_once_and_nothing_but_the_result_and_hidden_states_is_written(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama", hidden=256, layers=4, candidates=3)
    merge.manifest.write_text(f"{merge.manifest.read_text()}diagnostics = false\n")  # which read once more
    plan, before = merge.plan(), written_bytes()
    from regstream.runtime.scheduler import run

    run(plan)
    read = sum(candidate.checkpoint.num_bytes_read for candidate in plan.candidates)
    size = sum(path.stat().st_size for folder in merge.folders.candidates for path in folder.glob("*.safetensors"))
    assert read <= 1.05 * size
    companions = sum(p.stat().st_size for p in merge.output.iterdir() if p.suffix != ".safetensors")
    rest = written_bytes() - before - plan.write_bytes - companions
    # The journal's lines, and the metadata of an array a batch.
    assert 0 <= rest < 0.02 * plan.write_bytes + 100_000


def written_bytes() -> int:
    """What this process has handed to the operating system to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])
