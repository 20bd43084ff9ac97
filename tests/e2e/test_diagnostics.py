"""What a record says of residuals and changes is what dense float64 models say."""

from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import checkpoints
import reference
from merging import Merge, make_merge, warnings_in
from parametrize import slow
from regstream.events import Event
from regstream.output.record import read_provenance

Steps = list[dict[str, Any]]


def steps_of(output: Path) -> Steps:
    steps: Steps = read_provenance(output)["steps"]
    return steps


class Dense:
    """Whole models, float64."""

    def __init__(self, merge: Merge) -> None:
        self.rows = merge.rows
        self.merged = checkpoints.load(merge.output)
        self.own = [checkpoints.load(folder) for folder in merge.folders.candidates]

    def inputs(self, method: str, candidate: int, block: int) -> dict[str, Tensor]:
        """What the regression of a block observed of a candidate, by the names of weights."""
        if method == "regmean":
            return reference.linear_inputs(self.own[candidate], block, self.rows[candidate])
        merged = deepcopy(self.merged)
        if method == "regmean++":
            reference.blocks_of(merged)[block] = reference.blocks_of(self.own[candidate])[block]
        return reference.linear_inputs(merged, block, self.rows[candidate])

    def residuals(
        self, inputs: dict[str, Tensor], candidate: int, linears: list[str], block: int
    ) -> tuple[float, float]:
        """Of the merged weights and of the mean, over some linears of a block."""
        modules = dict(reference.linears_of(self.merged))
        squares = torch.zeros(3, dtype=torch.float64)
        for linear in linears:
            name = f"{reference.family_of(self.merged).blocks}.{block}.{linear}"
            stored = [model.get_parameter(f"{name}.weight").detach() for model in (self.merged, *self.own)]
            merged_OI, *own = [w if isinstance(modules[name], nn.Linear) else w.T for w in stored]
            own_OI, mean_OI = own[candidate], torch.stack(own).mean(0)
            for index, weight_OI in enumerate((merged_OI - own_OI, mean_OI - own_OI, own_OI)):
                squares[index] += (inputs[f"{name}.weight"] @ weight_OI.T).square().sum()
        merged, mean, output = squares.sqrt().tolist()
        return merged / output, mean / output


def assert_residuals(merge: Merge, method: str, *, within: float) -> None:
    """Every residual is the dense one's within a relative error, and the worst is the worst."""
    dense, found, expected = Dense(merge), list[tuple[float, float]](), list[tuple[float, float]]()
    blocks = [step for step in steps_of(merge.output) if step["name"].startswith("block")]
    for block, candidate in product(range(len(blocks)), range(len(dense.own))):
        step, inputs = blocks[block], dense.inputs(method, candidate, block)
        told = {entry["group"]: entry["candidates"][f"task{candidate}"] for entry in step["residuals"]}
        assert told.keys() == {solve["group"] for solve in step["solves"]}
        for solve in step["solves"]:
            found.append((told[solve["group"]]["merged"], told[solve["group"]]["mean"]))
            expected.append(dense.residuals(inputs, candidate, solve["linears"], block))
    assert len(found) >= len(blocks)
    assert found == [pytest.approx(residuals, rel=within) for residuals in expected]


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "regmean++"),
        slow("llama", "regmean"),
        ("gpt2", "regmean++"),
        slow("clip-full", "regmean++"),
        ("llama", "regfilter"),
    ],
)
def test_of_few_tokens_residuals_are_exact(tmp_path: Path, family: checkpoints.Family, method: str) -> None:
    keys = {"method": method, "dtype": "float32"}
    merge = make_merge(tmp_path, family, merge=keys, resources='device = "cpu"\ncompute_dtype = "float32"')
    merge.run()
    assert_residuals(merge, method, within=1e-3)


def test_candidates_do_not_have_to_be_in_memory_together(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, candidates=6, layers=1, num_rows=2, merge={"dtype": "float32"})
    merge.run()
    assert_residuals(merge, "regmean++", within=1e-3)
    assert_changes(merge)


@pytest.mark.slow
def test_of_many_tokens_residuals_are_estimated(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, candidates=2, hidden=576, layers=1, num_rows=40, merge={"dtype": "float32"})
    merge.run()
    assert_residuals(merge, "regmean++", within=0.1)


def assert_changes(merge: Merge) -> None:
    """Every change in the record is that of whole models."""
    base, merged, *own = (
        {name: tensor.detach() for name, tensor in checkpoints.load(folder).named_parameters()}
        for folder in (merge.folders.base, merge.output, *merge.folders.candidates)
    )
    candidates = {f"task{index}": tensors for index, tensors in enumerate(own)}
    entries = [entry for step in steps_of(merge.output) for entry in step["changes"]]
    told = {entry["parameter"].removeprefix("vision_model."): entry for entry in entries}
    assert told.keys() == merged.keys()
    for name, entry in told.items():
        assert entry["base_norm"] == pytest.approx(float(base[name].norm()), rel=1e-5)
        assert entry["candidates"].keys() == candidates.keys()
        for candidate, tensors in candidates.items():
            change, found = tensors[name] - base[name], entry["candidates"][candidate]
            assert found["norm"] == pytest.approx(float(change.norm()), rel=1e-4)
            if float(change.norm()) == 0:
                assert found["kept"] is None
            else:
                kept = float((merged[name] - base[name]).flatten() @ change.flatten() / change.norm() ** 2)
                assert found["kept"] == pytest.approx(kept, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "method"),
    [("llama", "regmean++"), ("gpt2", "ties"), slow("clip-full", "average"), ("llama", "regfilter")],
)
def test_kept_shares_are_those_of_whole_models(tmp_path: Path, family: checkpoints.Family, method: str) -> None:
    merge = make_merge(tmp_path, family, merge={"method": method})
    merge.run()
    assert_changes(merge)


def test_of_a_candidate_without_a_change_nothing_is_kept(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"method": "average"}, candidates=2, spread=0.0)
    merge.run()
    entries = [entry for step in steps_of(merge.output) for entry in step["changes"]]
    assert entries
    assert all(own == {"norm": 0.0, "kept": None} for entry in entries for own in entry["candidates"].values())


def test_without_diagnostics_the_weights_are_the_same(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, candidates=2, layers=1, num_rows=2)
    measured = {p.name: p.read_bytes() for p in merge.run().glob("*.safetensors")}
    merge.manifest.write_text(f"{merge.manifest.read_text()}diagnostics = false\n")
    assert {p.name: p.read_bytes() for p in merge.run(restart=True).glob("*.safetensors")} == measured
    assert all(step["residuals"] == step["changes"] == [] for step in steps_of(merge.output))


def test_values_that_the_merge_does_not_use_may_be_nan(tmp_path: Path) -> None:
    name, keys = "model.embed_tokens.weight", {"method": "average"}
    merge = make_merge(tmp_path, candidates=2, layers=1, merge=keys, rules='[merge.others]\nembeddings = "base"\n')
    file = merge.folders.candidates[0] / "model.safetensors"
    tensors = load_file(file)
    tensors[name][3] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    events: list[Event] = []
    merge.run(listener=events.append)
    assert any(f"{name} contains NaN" in message and "not measured" in message for message in warnings_in(events))
    (entry,) = (e for step in steps_of(merge.output) for e in step["changes"] if e["parameter"] == name)
    assert entry["candidates"].keys() == {"task1"}
