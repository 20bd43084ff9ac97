"""What a group's conclusion reads again: the candidates' mean, whichever way round their weights are stored."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import checkpoints
from merging import make_merge
from regstream.events import ignore
from regstream.runtime.solve import _mean_rows
from regstream.runtime.step_context import StepContext


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mean_of_differences_is_read_row_by_output_row(tmp_path: Path, family: checkpoints.Family) -> None:
    merge = make_merge(tmp_path, family, layers=1)
    plan = merge.plan()
    context, step = StepContext(plan, ignore), plan.steps[1]
    weights = [load_file(folder / "model.safetensors") for folder in merge.folders.candidates]
    for tensors in step.regressed.values():
        for tensor in tensors:
            stored = [own[plan.base.stored_name(tensor.name)] for own in weights]
            expected = torch.stack(stored).mean(0) - stored[0]
            expected_OI = expected.T if tensor.transposed else expected
            reference = {f"{tensor.linear}.weight": stored[0]}
            for rows in (slice(0, 5), slice(5, tensor.out_in[0])):
                mean_PI = _mean_rows(context, reference, tensors, str(tensor.linear), rows)
                torch.testing.assert_close(mean_PI, expected_OI[rows])
