"""What an evaluation was projected to take beside what the operating system counted, in processes of their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import workload
from bench.workload import Workload
from regstream.units import parse_bytes

COMMAND = [sys.executable, "-c", "from regstream_cli.app import main; main()"]
#: A step's line: its name, its peak, and the projected one.
STEP = re.compile(r"regstream: ([a-z]+(?: \d+)?) \(\d+ of \d+\): .*peak (\S+ \w+) of (\S+ \w+) projected")
#: One that is read, and one that is computed as it is read; a step's peak is of one model, so more would add nothing.
MODELS = ("task0", "mean")


def projections(manifest: Path, command: str = "evaluate") -> dict[str, float]:
    """What was projected beside what an evaluation took, step by step."""
    options = [option for name in MODELS for option in ("--only", name)]
    done = subprocess.run([*COMMAND, command, *options, str(manifest)], check=True, capture_output=True, text=True)
    return {name: parse_bytes(projected) / parse_bytes(peak) for name, peak, projected in STEP.findall(done.stderr)}


def evaluated(manifest: Path, table: str) -> Path:
    """The same manifest, with a table of held-out rows for each candidate: its calibration set."""
    text = manifest.read_text()
    for path in re.findall(r'path = "(task\d\.\w+)"', text):
        own = f'[candidates.calibration]\npath = "{path}"'
        held_out = f'[candidates.evaluation]\npath = "{path}"\n{table}\n'
        text = text.replace(own, held_out + own)
    manifest.write_text(text)
    return manifest


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "command"), [("bfloat16", "evaluate"), ("float32", "bias")])
def test_no_step_of_a_language_model_takes_more_than_projected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, command: str
) -> None:
    monkeypatch.setattr(workload, "WORK", tmp_path)
    merge = Workload(shape="smollm2-135m", blocks=2, rows=16, length=256, batch_rows=16, dtype=dtype)
    manifest = merge.manifest(tmp_path / "merge")
    found = projections(evaluated(manifest, 'field = "input_ids"\nmax_length = 256\nbatch_rows = 16'), command)
    assert found.keys() == {"stem", "block 0", "block 1", *(["head"] if command == "evaluate" else [])}
    assert all(1.0 <= ratio <= 1.3 for ratio in found.values()), found


@pytest.mark.slow
def test_nor_does_one_of_a_vision_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "WORK", tmp_path)
    merge = Workload(shape="clip-vit-b-32", blocks=2, rows=128, batch_rows=64, dtype="float32")
    manifest = merge.manifest(tmp_path / "merge")
    for path in manifest.parent.glob("task*.safetensors"):
        save_file({**load_file(path), "labels": torch.arange(128) % 10}, path)
    save_file({"weight": torch.randn(10, 768)}, manifest.parent / "head.safetensors")
    found = projections(evaluated(manifest, 'head = "head.safetensors"\nbatch_rows = 64'))
    assert found.keys() == {"stem", "block 0", "block 1", "head"}
    assert all(1.0 <= ratio <= 1.3 for ratio in found.values()), found
