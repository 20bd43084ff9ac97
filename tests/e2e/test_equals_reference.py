"""The streaming result is the dense float64 reference's, for every family, method, number of candidates, and rule."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import checkpoints
import merging
import reference
from merging import Merge, cast, make_merge, read_result, warnings_in, worst_difference
from parametrize import grid, slow
from reference_formulas import FORMULAS
from regstream.events import Event

TOLERANCE = 1e-4
METHODS = get_args(reference.Method)


def assert_equal(merge: Merge, method: reference.Method = "regmean++", **options: Any) -> None:
    """Run the merge and hold every tensor of it against the reference."""
    difference, name = worst_difference(read_result(merge.run()), merge.reference(method, **options))
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


EVERYDAY = {
    *product(["regmean++"], ["llama", "gemma2", "clip-full"]),
    *[
        ("regmean", "bert"),
        ("average", "llama-tied"),
        ("ties", "gpt2"),
        ("model_stock", "gpt2"),
        ("swudi", "gpt2"),
        ("ace", "vit"),
    ],
}
#: How checkpoints name, tie, and leave out weights; `test_every_architecture.py` has a model of every other family.
OF_REGMEAN_PLUS_PLUS: tuple[checkpoints.Family, ...] = ("llama", "llama-tied", "gemma2", "clip-plain", "clip-full")
#: Methods of weights alone run no model: of a family they see names, ties, fused and transposed weights. Each method
#: has two that it has not every day, each family as many methods as another.
OF_WEIGHTS_ALONE: tuple[tuple[reference.Method, checkpoints.Family], ...] = (
    ("average", "phi3"), ("average", "clip-full"), ("task_arithmetic", "bert"), ("task_arithmetic", "llama-tied"),
    ("ties", "vit"), ("ties", "phi3"), ("model_stock", "llama-tied"), ("model_stock", "vit"),
    ("swudi", "llama-tied"), ("swudi", "clip-full"),
    ("aswudi", "gpt2"), ("aswudi", "vit"), ("ace", "gpt2"), ("ace", "bert"),
)  # fmt: skip


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("method", "family"),
    [
        *sorted(EVERYDAY),
        *(slow("regmean++", family) for family in OF_REGMEAN_PLUS_PLUS if ("regmean++", family) not in EVERYDAY),
        *(slow("regmean", family) for family in ("gemma2", "clip-full")),
        *(slow(*case) for case in OF_WEIGHTS_ALONE),
    ],
)
def test_every_method_on_every_family(tmp_path: Path, family: checkpoints.Family, method: reference.Method) -> None:
    assert_equal(make_merge(tmp_path, family, merge={"method": method}), method)


@pytest.mark.parametrize(
    ("family", "alpha"),
    [("llama", 1.0), slow("llama", 0.1)],
)
def test_every_alpha(tmp_path: Path, family: checkpoints.Family, alpha: float) -> None:
    assert_equal(make_merge(tmp_path, family, merge={"alpha": alpha}), alpha=alpha)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "candidates", "sharded"),
    [("llama", 1, False), slow("clip", 8, True)],
)
def test_any_number_of_candidates(
    tmp_path: Path, family: checkpoints.Family, candidates: int, *, sharded: bool
) -> None:
    assert_equal(make_merge(tmp_path, family, candidates=candidates, sharded=sharded))


@pytest.mark.simulated
@pytest.mark.parametrize("alpha", [slow(0.95), 1.0])
def test_fewer_tokens_than_inputs(tmp_path: Path, alpha: float) -> None:
    merge = make_merge(tmp_path, "llama", candidates=2, num_rows=1, merge={"alpha": alpha})
    events: list[Event] = []
    difference, name = worst_difference(read_result(merge.run(listener=events.append)), merge.reference(alpha=alpha))
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"
    told = warnings_in(events)
    assert len(told) == (3 if alpha == 1.0 else 0)
    assert all(f"block {index}: " in line and "near-singular" in line for index, line in enumerate(told))


WEIGHTS = [0.5, 1.0, 3.0]


def weighted(scale: float) -> Callable[[int], str]:
    return lambda index: f"weight = {WEIGHTS[index] * scale!r}"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_weights_of_candidates(tmp_path: Path, method: reference.Method) -> None:
    merge = make_merge(tmp_path, merge={"method": method}, candidate=weighted(1.0))
    assert_equal(merge, method, weights=WEIGHTS)


@pytest.mark.slow
def test_weights_without_an_off_diagonal_scale(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"alpha": 1.0}, candidate=weighted(1.0))
    assert_equal(merge, weights=WEIGHTS, alpha=1.0)


@pytest.mark.slow
def test_only_the_ratios_of_weights_count(tmp_path: Path) -> None:
    made = []
    for power in (0, -39, 38):
        folder = tmp_path / str(power)
        folder.mkdir()
        weights = [f"weight = {weight}e{power}" for weight in WEIGHTS]
        merge = make_merge(folder, "clip", layers=1, candidate=weights.__getitem__)
        made.append([path.read_bytes() for path in sorted(merge.run().glob("*.safetensors"))])
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("method", [slow("regmean++"), slow("task_arithmetic")])
def test_a_weight_that_no_sum_resolves_has_no_effect(tmp_path: Path, method: reference.Method) -> None:
    merge = make_merge(tmp_path, merge={"method": method}, candidate=lambda index: f"weight = {[1, 1e-60, 1][index]}")
    assert_equal(merge, method, weights=[1.0, 1e-60, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "batch_rows"), [("regmean++", 5), slow("regmean", 1)])
def test_any_batch_size(tmp_path: Path, method: reference.Method, batch_rows: int) -> None:
    merge = make_merge(tmp_path, "gemma2", merge={"method": method}, calibration=f"batch_rows = {batch_rows}")
    assert_equal(merge, method)


RULES: dict[str, tuple[str, Callable[[str, int], bool]]] = {
    "mlp of the base": ('parameters = "*.mlp.*"\nuse = "base"', lambda name, block: "mlp" in name),
    "one of a group averaged": ('parameters = "*.k_proj.*"\nuse = "average"', lambda name, block: "k_proj" in name),
    "middle averaged": ('parameters = "*"\nblocks = "middle"\nuse = "average"', lambda name, block: block == 1),
    "last of the base": ('parameters = "*"\nblocks = "2"\nuse = "base"', lambda name, block: block == 2),
    "all averaged": ('parameters = "*.layers.*"\nuse = "average"', lambda name, block: True),
    "norms of the base": ('parameters = "*norm*"\nblocks = "0-2"\nuse = "base"', lambda name, block: "norm" in name),
}


OF_RULES = {("llama", "regmean++", "one of a group averaged")}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("family", "method", "rule"),
    [
        *grid(OF_RULES, ["llama"], ["regmean++"], RULES),
        slow("clip", "regmean", "mlp of the base"),
    ],
)
def test_rules(tmp_path: Path, family: checkpoints.Family, method: reference.Method, rule: str) -> None:
    text, matches = RULES[rule]
    use = "base" if '"base"' in text else "average"
    merge = make_merge(tmp_path, family, layers=3, merge={"method": method}, rules=f"[[rules]]\n{text}\n")
    assert_equal(merge, method, uses=lambda name, block: use if matches(name, block) else "regress")


BLOCKS = 6
#: Regions of the paper's ablation: what is regressed. Other blocks are the plain mean.
REGIONS = {"early": {0, 1}, "middle+late": {2, 3, 4, 5}}
REGION_RULES = """
[[rules]]
parameters = "*.layers.*"
blocks = "{}"
use = "regress"
[[rules]]
parameters = "*.layers.*"
use = "average"
"""


@pytest.mark.slow
@pytest.mark.parametrize("region", ["early", slow("middle+late")])
def test_regions_of_clip(tmp_path: Path, region: str) -> None:
    rules = REGION_RULES.format(region)
    merge = make_merge(tmp_path, "clip", layers=BLOCKS, candidates=2, rules=rules)
    assert_equal(merge, uses=lambda name, block: "regress" if block in REGIONS[region] else "average")


@pytest.mark.slow
def test_clip_with_a_component_left_out_as_in_the_base(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "clip", candidates=2, rules='[[rules]]\nparameters = "*.self_attn.*"\nuse = "base"\n')
    assert_equal(merge, uses=lambda name, block: "base" if "self_attn" in name else "regress")


@pytest.mark.slow
def test_first_rule_wins(tmp_path: Path) -> None:
    rules = """
[[rules]]
parameters = "*.o_proj.*"
use = "regress"
[[rules]]
parameters = "*.self_attn.*"
use = "base"
"""
    merge = make_merge(tmp_path, "llama", rules=rules)
    assert_equal(merge, uses=lambda name, block: "base" if "self_attn" in name and "o_proj" not in name else "regress")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method", "use"),
    [
        ("llama-tied", "regmean++", "average"),
        slow("llama", "regmean++", "base"),
        slow("clip", "regmean++", "average"),
        slow("llama", "average", "base"),
    ],
)
def test_what_no_block_holds(tmp_path: Path, family: checkpoints.Family, method: reference.Method, use: str) -> None:
    merge = make_merge(tmp_path, family, merge={"method": method})
    text = merge.manifest.read_text()
    parts = ["embeddings", "final_norm", "head"]
    others = "[merge.others]\n" + "".join(f'{part} = "{use}"\n' for part in parts)
    merge.manifest.write_text(text.replace("\n[[candidates]]", f"{others}\n[[candidates]]", 1))
    assert_equal(merge, method, others=dict.fromkeys(parts, use))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        slow("ties", {"density": 0.6, "scale": 0.5}),
        slow("ace", {"epsilon": 0.01, "tau": 0.0}),
        slow("swudi", {"time": 20.0, "rank": 0.9, "scale": 0.7}),
        slow("aswudi", {"filter": "gavish_donoho", "scale": 0.7}),
    ],
)
def test_options_of_methods_without_data(tmp_path: Path, method: reference.Method, options: dict[str, Any]) -> None:
    assert_equal(make_merge(tmp_path, "gpt2", merge={"method": method} | options), method, **options)


@pytest.mark.simulated
@pytest.mark.slow
@pytest.mark.parametrize("method", FORMULAS)
def test_a_candidate_that_is_the_base(tmp_path: Path, method: reference.Method) -> None:
    merge = make_merge(tmp_path, "gpt2", merge={"method": method})
    shutil.copytree(merge.folders.base, merge.folders.candidates[1], dirs_exist_ok=True)
    assert_equal(merge, method)


def test_a_scale_for_some_candidates(tmp_path: Path) -> None:
    scales = ["", "scale = 0.2", "scale = 0.9"]
    merge = make_merge(tmp_path, merge={"method": "task_arithmetic", "scale": 0.4}, candidate=scales.__getitem__)
    assert_equal(merge, "task_arithmetic", scales=[0.4, 0.2, 0.9])


def test_scale_of_task_arithmetic(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"method": "task_arithmetic", "scale": 0.8})
    assert_equal(merge, "task_arithmetic", scale=0.8)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), [("llama", "regmean"), slow("clip", "average")])
def test_output_dtype_is_one_cast_at_the_end(tmp_path: Path, family: checkpoints.Family, method: str) -> None:
    results = []
    for dtype in ("float32", "bfloat16"):
        merge = make_merge(tmp_path, family, merge={"method": method, "dtype": dtype, "output": dtype}, layers=2)
        merge.run()
        results.append(read_result(tmp_path / dtype))
    expected = cast(results[0], torch.bfloat16)
    assert all(torch.equal(results[1][name], tensor) for name, tensor in expected.items())
    assert not any(torch.equal(results[0][name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
def test_hidden_states_pass_the_blocks_as_they_were_written(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, merge={"dtype": "bfloat16"}, layers=2)
    # Rounding of what the merged prefix computes moves the statistics, and with them some weights by a rounding.
    difference, name = worst_difference(read_result(merge.run()), cast(merge.reference(), torch.bfloat16))
    assert 0 < difference < 2**-7, name


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("family", "dtype", "compute_dtype", "tolerance"),
    [
        ("llama", torch.bfloat16, "float32", TOLERANCE),
        slow("clip", torch.float16, "float32", TOLERANCE),
        # Rounding of the forward passes reaches the statistics, never the weights themselves.
        slow("llama", torch.bfloat16, "bfloat16", 2e-2),
    ],
)
def test_narrow_candidates_are_merged_as_exactly_as_is_computed(
    tmp_path: Path, family: checkpoints.Family, dtype: torch.dtype, compute_dtype: str, tolerance: float
) -> None:
    resources = f'device = "{merging.device}"\ncompute_dtype = "{compute_dtype}"'
    merge = make_merge(tmp_path, family, merge={"dtype": "float32"}, dtype=dtype, resources=resources)
    difference, name = worst_difference(read_result(merge.run()), merge.reference())
    assert difference <= tolerance, f"{name}: {difference:.1e}"


@pytest.mark.slow
def test_plain_averaging_is_somewhere_else(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama")
    assert worst_difference(read_result(merge.run()), merge.reference("average"))[0] > 100 * TOLERANCE
