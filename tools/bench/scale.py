"""What `regstream plan` says of merges too large to be made here: from configs and headers, no weight anywhere."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.workload import WORK
from regstream.errors import BudgetError
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.units import format_bytes
from synthetic import checkpoint

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b")
DEVICES = (8, 12, 16, 24)  # GiB
CANDIDATES = 5
ROWS, LENGTH = 64, 2048


def scale() -> Iterator[str]:
    """Five candidates on one CUDA device: what a merge needs there, or in how many passes it fits."""
    yield "| K = 5, 64 rows of 2,048 tokens each, one a batch | " + " | ".join(f"{size} GiB" for size in DEVICES) + " |"
    yield "|---|" + "---|" * len(DEVICES)
    for model in MODELS:
        manifest = manifest_of(model)
        cells = [_cell(plan_on(manifest, f"{size}GiB")) for size in DEVICES]
        yield f"| {model} | " + " | ".join(cells) + " |"
    plan = plan_on(manifest_of(MODELS[-1]), "24GiB")
    yield ""
    yield f"{MODELS[-1]}: reads {format_bytes(plan.read_bytes)}, takes {format_bytes(plan.disk_bytes)} of disk"


def _cell(plan: Plan) -> str:
    needed = format_bytes(plan.projected_bytes(plan.peak_step, "device"))
    host = format_bytes(max(plan.projected_bytes(step) for step in plan.steps))
    passes = max(len(plan.passes(step)) for step in plan.steps)
    try:
        plan.check_memory()
    except BudgetError:
        return f"no: {needed}"
    return f"{needed}, host {host}" + (f", {passes} passes" if passes > 1 else "")


def plan_on(manifest: Path, device_memory: str) -> Plan:
    text = manifest.read_text().partition("[resources]")[0]
    resources = f'[resources]\ndevice = "cuda"\ndevice_memory = "{device_memory}"\nhost_memory = "16GiB"\n'
    manifest.write_text(text + resources)
    return make_plan(read_manifest(manifest), for_this_machine=False)


def manifest_of(model: str) -> Path:
    folder = WORK / "hollow" / model
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        checkpoint.main([str(folder), "--shape", model, "--hollow"])
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = torch.randint(0, vocabulary, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids.tolist()))
    text = f'[merge]\nmethod = "regmean++"\nbase = "{folder}"\noutput = "../{model}-merged"\n'
    for index in range(CANDIDATES):
        text += f'[[candidates]]\nname = "task{index}"\nmodel = "{folder}"\n[candidates.calibration]\n'
        text += f'path = "{rows}"\nfield = "input_ids"\nmax_length = {LENGTH}\nbatch_rows = 1\n'
    (folder / "manifest.toml").write_text(text + "[resources]\n")
    return folder / "manifest.toml"
