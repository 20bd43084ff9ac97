"""Every architecture without a table: merged as the dense reference does, or refused for a reason that is named.

What comes of it is the architecture's row in `manifests/architectures.md`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dense_any
import merging
from docs.architectures import outcome, row
from docs.generated import ROOT
from merging import worst_difference
from parametrize import grid
from regstream.errors import InputError
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run
from tiny_merge import TinyMerge, make_tiny_merge
from tiny_models.model import Kind
from tiny_models.registry import TINY_MODELS

TOLERANCE = 1e-4
#: MobileBERT's tokens become alike from block to block, and rounding grows twentyfold in each: 1e-6 in the first.
#: Of MPNet's last block one unit is nearly dead: what float32 rounds of GELU's tail is 1.0e-4 in that unit's column.
TOLERANCES = {"mobilebert": 1e-3, "mpnet": 2e-4}
#: A decoder, one with windows, a text and an image encoder, a task's head, a language model with images, a hybrid; two
#: encoders with a decoder; and one that is refused.
EVERYDAY = {
    *[("llama",), ("gemma2",), ("bert",), ("vit",), ("llama-seqcls",), ("qwen2_vl",), ("lfm2",)],
    *[("bart",), ("t5",), ("siglip",)],
}
#: What a refusal of a kind says, where models of that kind may be refused. A tensor's name is no reason.
REFUSALS: dict[Kind, str] = {
    "experts": r"(?<![\w.])experts?(?![\w.])",
    "several stacks": r"towers|(stacks|lists) of blocks|change the shape of hidden states",
    "repeated block": r"shares? (their |its )?(parameters|weights)|times in a pass|more than once",
    "passed state": r"more than (its )?hidden states|(another|earlier|first|previous) block|not one vector a token",
}
#: The same for single models with one stack, or with reasons of their own.
SINGLE_REFUSALS = {
    "siglip2_vision": "pixel_attention_mask|spatial_shapes",
    "vit_mae": "random",
    "rwkv": "changes its own parameters",
    "mllama": "cross-attention|never runs|does not run",
    "longformer": "window|pads|not one a token",
    "led": "window|pads|not one a token",
    "speech_to_text": "input_features",
    "moonshine": "input_values",
    "wav2vec2": "input_values",
    "hubert": "input_values",
    "wavlm": "input_values",
}
#: Of a model of two towers, the one that may be merged instead.
TOWERS = {"clip": "clip_vision"}
#: Why parameters of two dimensions and more are averaged that are no matrices of linears.
MULTIPLY_NOTHING = ("a convolution", "a table of embeddings", "not multiplied as a matrix")
TABLE = (ROOT / "manifests" / "architectures.md").read_text().splitlines()


@pytest.fixture(autouse=True, params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """On a simulated device other tests run: this one is about architectures."""
    monkeypatch.setattr(merging, "device", request.param)
    return str(request.param)


@pytest.mark.parametrize("name", grid(EVERYDAY, TINY_MODELS))
def test_it_is_merged_or_refused_for_a_reason(tmp_path: Path, name: str) -> None:
    model = TINY_MODELS[name]
    if model.needs_package:
        pytest.importorskip(model.needs_package)
    merge = make_tiny_merge(tmp_path, model)
    planned = plan_or_refusal(merge)
    reasons = SINGLE_REFUSALS.get(name) or REFUSALS.get(model.kind)
    assert row(model, outcome(model, planned, tmp_path)) in TABLE, "tools/docs/run writes it"
    if isinstance(planned, str):
        assert reasons, f"may not be refused: {planned}"
        assert re.search(reasons, planned), planned
        assert len(planned.splitlines()) == 1
        assert_runs(merge)
        return
    if name in TOWERS:
        images = [[{"pixel_values": row["pixel_values"]} for row in rows] for rows in merge.rows]
        merge = replace(merge, model=TINY_MODELS[TOWERS[name]], rows=images)
    assert set(undescribed(planned, model.averaged)) == set()
    expected = merge.expected()
    assert {in_block(each) for each in regressed(planned)} == {in_block(each) for each in expected.regressed}
    assert_differs_from_the_mean_where_regressed(merge, expected)
    run(planned)
    difference, worst = worst_difference(merge.result(), expected.tensors)
    assert difference <= TOLERANCES.get(name, TOLERANCE), f"{worst}: {difference:.1e}"


def assert_runs(merge: TinyMerge) -> None:
    """What is refused is a model that transformers runs."""
    with torch.no_grad():
        outputs = merge.candidates()[0](**merge.rows[0][0])
    values = [value for value in outputs.values() if isinstance(value, Tensor)]
    assert values
    assert all(value.isfinite().all() for value in values)


def assert_differs_from_the_mean_where_regressed(merge: TinyMerge, expected: dense_any.Merged) -> None:
    """The reference itself: a result that is the mean would not do for what is regressed, and is one for all else."""
    mean = dense_any.average(merge.candidates())
    assert expected.regressed
    for name, value in expected.tensors.items():
        assert value.isfinite().all()
        difference = float((value - mean[name]).norm() / mean[name].norm())
        assert (difference > 1e-3) == (name in expected.regressed), f"{name}: {difference:.1e}"


def plan_or_refusal(merge: TinyMerge) -> Plan | str:
    """The plan of a merge, or the message with which it is refused."""
    try:
        return merge.plan()
    except InputError as error:
        return str(error)


def regressed(plan: Plan) -> set[str]:
    """The model's names of what a plan regresses; of experts the parameter that holds them all."""
    whole = {piece: name for name, fused in plan.base.architecture.fused_weights.items() for piece in fused.pieces}
    names = {each.name for step in plan.steps for group in step.regressed.values() for each in group}
    return {whole.get(name, name) for name in names}


def undescribed(plan: Plan, averaged: Mapping[str, str]) -> Iterator[str]:
    """The matrices of blocks that a pass multiplies and that are not regressed, but for those of the description."""
    for block, reasons in enumerate(plan.base.architecture.not_regressed):
        for name, reason in reasons.items():
            known = f"{block}.{name.removesuffix('.weight')}"
            if reason not in MULTIPLY_NOTHING and not any(fnmatchcase(known, pattern) for pattern in averaged):
                yield f"{known}: {reason}"


def in_block(name: str) -> str:
    """A block's parameter by the block's number and its name there, wherever the list of blocks is."""
    return re.sub(r"^.*?(?<!\w)(?=\d+\.)", "", name)
