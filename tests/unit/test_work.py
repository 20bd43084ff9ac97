"""What a plan says that a merge computes is what torch counts while it runs."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import checkpoints
from in_memory import Values, combine, method
from merging import make_merge
from parametrize import slow
from regstream import api
from regstream.linalg.eigen import eigh_flops
from regstream.planning.plan import Plan
from regstream.planning.work import FORMULAS, MOVED, flops_of, forward_work


def counted_forward(plan: Plan, block: int) -> float:
    """FLOP of one candidate's rows in a block, as torch counts them."""
    step, candidate = plan.steps[1 + block], plan.candidates[0]
    weights = {name: torch.zeros(shape) for name, shape in step.shapes.items()}
    # The fused attention of CPUs is not counted.
    unfused = sdpa_kernel(SDPBackend.MATH)
    with plan.model.bind_parameters(weights), unfused, FlopCounterMode(display=False) as counter:
        for batch in candidate.rows.batches:
            plan.model.run_block(block, torch.zeros(*batch.shape, plan.model.hidden_size), batch)
    return float(counter.get_total_flops())


@pytest.mark.parametrize("family", ["llama", slow("gpt2"), slow("bert"), "clip"])
def test_forward_passes(tmp_path: Path, family: checkpoints.Family) -> None:
    plan = make_merge(tmp_path, family, layers=1, candidates=1).plan()
    shapes, hidden_size = plan.steps[1].shapes.values(), plan.model.hidden_size
    batches = plan.candidates[0].rows.batches
    flops, _ = forward_work("block", shapes, batches, hidden_size=hidden_size, dtype=torch.float32)
    assert flops == pytest.approx(counted_forward(plan, 0), rel=0.02)


def flops(plan: Plan) -> Mapping[str, float]:
    """Of all steps, by kind of work."""
    total: Counter[str] = Counter()
    for step in plan.steps:
        total.update(plan.work(step))
    return total


def test_twice_the_rows_are_twice_the_tokens_work(tmp_path: Path) -> None:
    # Where tokens are stored instead of their Gram matrix, work is another: enough of them for all inputs.
    # Diagnostics move weights, however many rows there are.
    keys, resources = "batch_rows = 1", 'device = "cpu"\ndiagnostics = false'
    merges = [make_merge(tmp_path / str(n), num_rows=n, calibration=keys, resources=resources) for n in (12, 24)]
    once, twice = (flops(merge.plan()) for merge in merges)
    for kind in ("candidates' forward", "merged forward", "Gram matrices", MOVED):
        assert twice[kind] == pytest.approx(2 * once[kind])
    assert twice["solves"] == pytest.approx(once["solves"])


def test_a_teacher_passes_the_last_block_up_to_its_last_group_once(tmp_path: Path) -> None:
    # What leaves the last block is not needed; the first pass still observes the inputs of all groups.
    plan = make_merge(tmp_path, layers=2, merge={"method": "regfilter", "teacher": 0.3}).plan()
    first, last = (plan.work(step)["candidates' forward"] for step in plan.steps if step.regressed)
    [(*_, group), _] = [list(step.regressed) for step in plan.steps if step.regressed]
    weights = sum(math.prod(parameter.shape) for parameter in plan.steps[1].regressed[group])
    assert first - last == pytest.approx(2 * sum(math.prod(batch.shape) for batch in plan.batches) * weights)


def test_a_method_of_weights_alone_multiplies_nothing(tmp_path: Path) -> None:
    plan = make_merge(tmp_path, layers=1, merge={"method": "average"}).plan()
    assert plan.flops == 0
    assert len(plan.step_seconds) == len(plan.steps)
    assert all(seconds > 0 for seconds in plan.step_seconds)


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "swudi"},
        slow({"method": "aswudi"}),
        {"method": "ace"},
        {"method": "regfilter", "prior": "aswudi"},
        slow({"method": "regfilter", "filter": "participation"}),
        slow({"method": "featcal"}),
    ],
    ids=lambda keys: "-".join(keys.values()),
)
def test_a_plan_and_a_run_have_the_same_kinds_of_work(tmp_path: Path, keys: Mapping[str, Any]) -> None:
    merge = make_merge(tmp_path, layers=1, candidates=2, num_rows=2, merge=keys)
    plan = merge.plan()
    steps = json.loads((merge.run() / "regstream.measured.json").read_text())["steps"]
    for step, measured in zip(plan.steps, steps, strict=True):
        planned = {kind for kind, flop in flops_of(plan.work(step)).items() if flop}
        assert planned <= measured["work"].keys(), step.name
    decomposed = sum(eigh_flops(p.out_in[1]) for p in plan.steps[1].parameters if p.is_linear)
    if "swudi" in " ".join(keys.values()):
        assert plan.work(plan.steps[1])[FORMULAS] > decomposed


#: What torch does not count by itself: sums that products are added to in place, from the shapes of all three.
IN_PLACE = {torch.ops.aten.addmm_: lambda _, left, right, **options: 2 * left[0] * left[1] * right[1]}


@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
@pytest.mark.parametrize("name", ["swudi", "ace"])
def test_products_of_a_formula(name: str, shape: tuple[int, int]) -> None:
    made = method(name)
    base = torch.zeros(shape)
    counted, planned = [], []
    for count in (2, 4):
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            combine(made, Values(base, [torch.randn(shape) for _ in range(count)]))
        counted.append(counter.get_total_flops())
        planned.append(made.combine_flops(shape, count))
    # Torch multiplies both triangles of a symmetric product.
    assert 0.5 < (planned[1] - planned[0]) / (counted[1] - counted[0]) < 1
    assert planned[0] > counted[0] / 2 + 9 * min(shape) ** 3


def test_a_device_that_is_not_here_has_no_estimate(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    merge: Any = make_merge(tmp_path, layers=1, resources='device = "cuda"\ndevice_memory = "8GiB"')
    assert api.plan(merge.read(), for_this_machine=False).step_seconds == ()
