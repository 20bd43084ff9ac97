"""The plain in-memory implementation that the engine is compared with does the same merge."""

from pathlib import Path

import pytest

import checkpoints
from bench import baseline
from merging import make_merge, read_result, worst_difference
from parametrize import slow


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", slow("clip")])
def test_the_baseline_merges_as_the_engine_does(tmp_path: Path, family: checkpoints.Family) -> None:
    # Rows of one length: the baseline, like what it stands for, would count padding as tokens.
    merge = make_merge(tmp_path, family, candidates=2, layers=2, num_rows=16, calibration="batch_rows = 1")
    baseline.merge(merge.manifest, tmp_path / "plain")
    merged, plain = read_result(merge.run()), read_result(tmp_path / "plain")
    difference, name = worst_difference(merged, plain)
    assert difference < 1e-4, name
