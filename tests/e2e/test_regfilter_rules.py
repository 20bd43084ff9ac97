"""Groups solved in turn where rules leave some groups, or some linears of a group, to the mean or the base."""

from pathlib import Path

import pytest
import torch

import checkpoints
from merging import make_merge, read_result
from parametrize import slow
from regstream.planning.opened_merge import OpenedMerge

RULES = {
    "one group": '[[rules]]\nparameters = "*.o_proj.*"\nuse = "base"\n',
    "several groups": '[[rules]]\nparameters = "*.self_attn.*"\nuse = "average"\n',
    "part of a group": '[[rules]]\nparameters = "*.up_proj.*"\nuse = "average"\n',
    "the last alone": (
        '[[rules]]\nparameters = "*.down_proj.*"\nuse = "regress"\n[[rules]]\nparameters = "*"\nuse = "base"\n'
    ),
}


@pytest.mark.simulated
@pytest.mark.parametrize("rules", ["one group", *map(slow, list(RULES)[1:])])
def test_what_is_not_regressed_runs_in_every_pass(tmp_path: Path, rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for stores in (True, False):
        folder = tmp_path / str(stores)
        folder.mkdir()
        monkeypatch.setattr(OpenedMerge, "stores_group_inputs", stores)
        merge = make_merge(folder, "llama", layers=2, merge={"method": "regfilter"}, rules=RULES[rules])
        results.append(read_result(merge.run()))
    base = checkpoints.load(merge.folders.base)
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-5, atol=1e-7)
        if rules == "one group" and ".o_proj." in name:
            torch.testing.assert_close(tensor, base.get_parameter(name).detach(), rtol=0, atol=1e-6)
