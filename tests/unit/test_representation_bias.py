"""Representation bias, streamed: equal to what whole models show, at every depth."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import checkpoints
from merging import Merge, make_merge
from regstream.errors import InputError, ManifestError
from regstream.evaluation.representation_bias import RepresentationBias, representation_bias

ROWS = [checkpoints.random_rows(checkpoints.VOCABULARY, [19, 1, 33, 8], seed=300 + index) for index in range(2)]
LAYERS = 3


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    folder = tmp_path_factory.mktemp("bias")
    table = '[candidates.evaluation]\npath = "held-out-{}.jsonl"\nfield = "input_ids"\nbatch_rows = 3'
    merge = make_merge(folder, "llama", layers=LAYERS, candidates=2, num_rows=4, hidden=16, candidate=table.format)
    for index, rows in enumerate(ROWS):
        checkpoints.write_token_rows(folder / f"held-out-{index}.jsonl", rows)
    merge.run()
    return merge


@torch.no_grad()
def whole_states(folder: Path, rows: list[list[int]]) -> list[Tensor]:
    """What enters each block and what leaves the last, (T, D) each, of the whole model, row by row."""
    model = checkpoints.load(folder, torch.float32)
    states: list[list[Tensor]] = [[] for _ in range(LAYERS + 1)]
    layers = model.get_submodule("model.layers")
    for depth, layer in enumerate(layers.children()):
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, depth=depth: states[depth].append((args or [kwargs["hidden_states"]])[0][0]),
            with_kwargs=True,
        )
    list(layers.children())[-1].register_forward_hook(lambda _, __, output: states[LAYERS].append(output[0]))
    for row in rows:
        model(input_ids=torch.tensor([row]), use_cache=False)
    return [torch.cat(depth) for depth in states]


def by_place(found: list[RepresentationBias]) -> dict[tuple[str, str, int], tuple[float, float]]:
    return {(bias.model, bias.dataset, bias.depth): (bias.l1, bias.cosine) for bias in found}


@pytest.mark.slow
def test_every_distance_is_the_whole_models(merge: Merge) -> None:
    found = by_place(representation_bias(merge.plan(), also={"copy": merge.folders.candidates[0]}))
    assert {model for model, _, _ in found} == {"mean", "regmean++", "copy"}
    assert len(found) == 3 * 2 * (LAYERS + 1)
    for index, rows in enumerate(ROWS):
        own = whole_states(merge.folders.candidates[index], rows)
        merged = whole_states(merge.output, rows)
        for depth in range(LAYERS + 1):
            l1 = float((own[depth] - merged[depth]).abs().mean())
            cosine = float(1 - cosine_similarity(own[depth], merged[depth], dim=-1).mean())
            assert found["regmean++", f"task{index}", depth] == pytest.approx((l1, cosine), rel=1e-3, abs=1e-6)


def test_a_candidate_lies_nowhere_from_itself(merge: Merge) -> None:
    found = by_place(representation_bias(merge.plan(), also={"copy": merge.folders.candidates[0]}, only=["copy"]))
    assert {model for model, _, _ in found} == {"copy"}
    for depth in range(LAYERS + 1):
        assert found["copy", "task0", depth] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert found["copy", "task1", LAYERS][0] > 0.01


@pytest.mark.slow
def test_nothing_is_left_behind(merge: Merge) -> None:
    representation_bias(merge.plan())
    assert not merge.plan().workdir.exists()


def test_what_cannot_be_compared_is_refused(merge: Merge, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match='there is no model "other"; there are base, task0, task1, mean, regmean'):
        representation_bias(merge.plan(), only=["other"])
    bare = make_merge(tmp_path, "llama", layers=1)
    with pytest.raises(ManifestError, match=r"bias: no candidate has a \[candidates.evaluation\] table"):
        representation_bias(bare.plan())
    text = merge.manifest.read_text().replace('output = "merged"', 'output = "nowhere"')
    other = merge.manifest.with_name("other.toml")
    other.write_text(text)
    with pytest.raises(InputError):
        representation_bias(Merge(other, merge.folders, merge.rows).plan())
