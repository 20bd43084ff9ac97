"""Warming up: nothing of it is seen later but that first calls have been made."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from merging import make_merge
from regstream.methods.regmean import RegMean, RegMeanOptions
from regstream.planning.warmup import warm_up

PRODUCTS: Any = torch.backends.mkldnn  # untyped
RUN = """
import sys
import psutil
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

plan = make_plan(read_manifest(sys.argv[1]))
mapped = psutil.Process().memory_info().shared
run(plan)
print(psutil.Process().memory_info().shared - mapped)
"""


@pytest.mark.parametrize("alpha", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_chance_and_settings_stay_as_they_were(dtype: torch.dtype, alpha: float) -> None:
    before, precision = torch.random.get_rng_state(), PRODUCTS.matmul.fp32_precision
    warm_up(RegMean(RegMeanOptions(alpha=alpha)), dtype, torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert PRODUCTS.matmul.fp32_precision == precision


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped of files")
def test_a_merge_maps_hardly_more_of_libraries_than_its_plan(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama", hidden=256, layers=2, candidates=2)
    told = subprocess.run(
        [sys.executable, "-c", RUN, str(merge.manifest)], check=True, capture_output=True, text=True
    ).stdout
    assert int(told) < 7 << 20  # measured: 2 MiB; 12 without warming up, and 36 where files are mapped in large pieces
