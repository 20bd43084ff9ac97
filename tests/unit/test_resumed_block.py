"""A block taken up from inputs of its linears gives what it gives from its own input."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from parametrize import grid
from regstream.models.linear_inputs import observe
from regstream.models.resumed_block import OUTPUT, group_dependencies, resumed_block
from regstream.planning.plan import Plan
from regstream.planning.step import Step
from tiny_merge import make_tiny_merge
from tiny_models.registry import TINY_MODELS

#: Attention and MLP one after another; both from the block's input; norms behind; a fused input; windows; an encoder.
EVERYDAY = {("llama",), ("gpt_neox",), ("gemma2",), ("phi3",), ("bert",)}
MORE = ["falcon", "mpt", "olmo2", "granite", "vit", "mamba", "gpt2"]


def weights_of(plan: Plan, step: Step) -> dict[str, Tensor]:
    weights = {parameter.name: torch.empty(parameter.shape) for parameter in (*step.parameters, *step.borrowed)}
    plan.candidates[0].checkpoint.read(weights)
    return weights


def stem_output(plan: Plan) -> Tensor:
    with plan.model.bind_parameters(weights_of(plan, plan.steps[0])):
        rows = plan.candidates[0].rows
        return plan.model.run_stem(rows.inputs(0, dtype=torch.float32, device=torch.device("cpu")))


@pytest.mark.parametrize("name", grid(EVERYDAY, [*(name for (name,) in sorted(EVERYDAY)), *MORE]))
def test_every_target_is_the_same_from_what_it_depends_on(tmp_path: Path, name: str) -> None:
    plan = make_tiny_merge(tmp_path, TINY_MODELS[name]).plan()
    model, batch, hidden_BLD = plan.model, plan.candidates[0].rows.batches[0], stem_output(plan)
    groups, block = model.architecture.groups[0], model.blocks[0]
    step = next(step for step in plan.steps if step.block == 0)
    with model.bind_parameters(weights_of(plan, step)):
        found = group_dependencies(model, 0, hidden_BLD, batch, None, names=[group.name for group in groups])
        assert found is not None
        assert found.keys() == {group.name for group in groups} | {OUTPUT}
        whole: dict[str, Tensor] = {}
        with observe(block, groups, lambda group, x: whole.__setitem__(group, x.clone())):
            whole[OUTPUT] = model.run_block(0, hidden_BLD, batch)
        for target, needed in found.items():
            seen: dict[str, Tensor] = {}
            known = {group: batch.unpack(batch.pack(whole[group])) for group in needed}
            skipped = [group.name for group in groups if group.name not in needed]
            with (
                observe(block, groups, seen.__setitem__),
                resumed_block(model, 0, known=known, skipped=skipped),
            ):
                seen[OUTPUT] = model.run_block(0, hidden_BLD, batch)
            torch.testing.assert_close(batch.pack(seen[target]), batch.pack(whole[target]), rtol=0, atol=0)


def dependencies_of(folder: Path, name: str) -> dict[str, frozenset[str]] | None:
    """What the targets of a tiny model's first block depend on."""
    plan = make_tiny_merge(folder, TINY_MODELS[name]).plan()
    step = next(step for step in plan.steps if step.block == 0)
    names = [group.name for group in plan.model.architecture.groups[0]]
    with plan.model.bind_parameters(weights_of(plan, step)):
        batch = plan.candidates[0].rows.batches[0]
        return group_dependencies(plan.model, 0, stem_output(plan), batch, None, names=names)


def test_what_a_llama_depends_on(tmp_path: Path) -> None:
    query, out, gate, down = (
        f"input of {name}" for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    )
    assert dependencies_of(tmp_path, "llama") == {
        query: frozenset(), out: frozenset([query]), gate: frozenset([out]), down: frozenset([gate]),
        OUTPUT: frozenset([out, down]),
    }  # fmt: skip


def test_a_block_that_writes_in_place_begins_from_its_own_input(tmp_path: Path) -> None:
    assert dependencies_of(tmp_path, "minicpm3") is None
