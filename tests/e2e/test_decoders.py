"""Encoders with their decoders: what decoder blocks read is the merged encoder's output, or the candidate's own."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

import dense_any
from merging import worst_difference
from parametrize import slow
from reference import regress
from regstream.errors import InputError
from regstream.evaluation.representation_bias import representation_bias
from regstream.planning.plan import Plan
from regstream.runtime.scheduler import run, run_stepwise
from tiny_merge import TinyMerge, load, make_tiny_merge
from tiny_models.model import TinyModel
from tiny_models.registry import TINY_MODELS

NAMES = ["t5", *map(slow, ["bart", "marian", "whisper"])]


def with_method(merge: TinyMerge, method: str) -> TinyMerge:
    """The merge by another method."""
    merge.manifest.write_text(merge.manifest.read_text().replace('"regmean++"', f'"{method}"'))
    return merge


def shards(output: Path) -> list[bytes]:
    """The bytes of every shard."""
    return [path.read_bytes() for path in sorted(output.glob("*.safetensors"))]


def steps_of(plan: Plan) -> list[str]:
    """The names of a plan's steps."""
    return [step.name for step in plan.steps]


@pytest.mark.parametrize("name", NAMES)
def test_regmean_reads_each_candidate_s_own_encoder(tmp_path: Path, name: str) -> None:
    merge = with_method(make_tiny_merge(tmp_path, TINY_MODELS[name]), "regmean")
    run(merge.plan())
    result, candidates, model = merge.result(), merge.candidates(), merge.model
    named = [dense_any.tensors_of(candidate) for candidate in candidates]
    assert model.decoder is not None
    with torch.no_grad():
        grams = [
            dense_any.gram_matrices(model, candidate, candidate.get_submodule(f"{model.decoder}.1"), rows)
            for candidate, rows in zip(candidates, merge.rows, strict=True)
        ]
    assert len(grams[0]) == 10
    for linear in grams[0]:
        weight = f"{model.decoder}.1.{linear}.weight"
        own = [tensors[weight] for tensors in named]
        expected = regress(own, [gram[linear] for gram in grams], [1.0, 1.0], dense_any.ALPHA)
        assert float((result[weight] - expected).norm() / expected.norm()) <= 1e-4, linear


@pytest.mark.parametrize("method", ["regmean", "regmean++"])
def test_a_final_norm_of_the_base_replaces_that_of_an_encoder_that_does_not_run(tmp_path: Path, method: str) -> None:
    merge = with_method(make_tiny_merge(tmp_path, TINY_MODELS["t5"]), method)
    merge.manifest.write_text(merge.manifest.read_text().replace('final_norm = "average"', 'final_norm = "base"'))
    [file] = merge.folders.candidates[1].glob("*.safetensors")
    tensors = load_file(file)
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    if method == "regmean++":
        merge.plan()
        return
    with pytest.raises(InputError, match=r'candidate "task1".*encoder\.final_layer_norm\.weight'):  # it runs its own
        merge.plan()


def test_the_decoder_has_a_stem_of_its_own_between_the_lists_of_blocks(tmp_path: Path) -> None:
    plan = make_tiny_merge(tmp_path, TINY_MODELS["bart"]).plan()
    blocks = [f"block {index}" for index in range(8)]
    assert steps_of(plan) == ["stem", *blocks[:4], "stem of the decoder", *blocks[4:], "head"]
    stem = plan.steps[5]
    assert {p.name for p in stem.parameters} == {
        "model.decoder.embed_positions.weight",
        "model.decoder.layernorm_embedding.weight",
        "model.decoder.layernorm_embedding.bias",
    }
    assert [p.name for p in stem.borrowed] == ["model.shared.weight"]
    assert [step.depth for step in plan.steps] == [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, -1]


def test_later_blocks_borrow_the_first_one_s_position_bias(tmp_path: Path) -> None:
    plan = make_tiny_merge(tmp_path, TINY_MODELS["t5"]).plan()
    bias = "{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    borrowed = {step.name: [p.name for p in step.borrowed] for step in plan.steps}
    assert borrowed["block 0"] == borrowed["block 4"] == []
    assert borrowed["block 3"] == [bias.format("encoder")]
    assert borrowed["block 5"] == [bias.format("decoder")]


def test_groups_of_cross_attention_read_the_input_s_tokens(tmp_path: Path) -> None:
    plan = make_tiny_merge(tmp_path, TINY_MODELS["bart"]).plan()
    step = plan.steps[6]
    assert step.stack_of("input of encoder_attn.k_proj") == 0
    assert {step.stack_of(group) for group in step.regressed} == {0, 1}
    assert sum(step.stack_of(group) == 0 for group in step.regressed) == 1
    [candidate, _] = plan.candidates
    assert candidate.num_tokens(0) != candidate.num_tokens(1)


def test_the_tokens_of_a_plan_are_those_of_inputs_and_targets(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS["t5"])
    rows = [row for rows in merge.rows for row in rows]
    num_tokens = sum(row[name].numel() for row in rows for name in ("input_ids", "decoder_input_ids"))
    assert merge.plan().num_tokens == num_tokens


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_stopped_at_any_step_goes_on_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    whole, stopped = (make_tiny_merge(tmp_path / each, TINY_MODELS[name]) for each in ("whole", "stopped"))
    run(whole.plan())
    plan = stopped.plan()
    for index in range(1, len(plan.steps)):
        stepwise = run_stepwise(plan)
        while next(stepwise) < index:
            continue
        stepwise.close()
    run(plan)
    assert shards(stopped.output) == shards(whole.output)


@pytest.mark.parametrize("damaged", ["*/*/*/c/*/*", "arguments/*/*"])
def test_hidden_states_and_arguments_that_are_damaged_are_made_again(tmp_path: Path, damaged: str) -> None:
    merge = make_tiny_merge(tmp_path / "one", TINY_MODELS["bart"])
    run(merge.plan())
    again = make_tiny_merge(tmp_path / "two", TINY_MODELS["bart"])
    plan = again.plan()
    stepwise = run_stepwise(plan)
    while next(stepwise) < 8:
        continue
    stepwise.close()
    paths = [path for folder in plan.hidden_folders.values() for path in folder.glob(damaged) if path.is_file()]
    assert paths
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    run(plan)
    assert shards(again.output) == shards(merge.output)


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_loaded_and_generates(tmp_path: Path, name: str) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS[name])
    run(merge.plan())
    model: Any = load(merge.model, merge.output)
    inputs = {key: value for key, value in merge.rows[0][0].items() if key != "decoder_input_ids"}
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[0] == 1


def test_a_shard_takes_several_steps_also_where_the_decoder_s_stem_is_empty(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path / "one", TINY_MODELS["marian"])
    joined = make_tiny_merge(tmp_path / "joined", TINY_MODELS["marian"])
    text = joined.manifest.read_text().replace("[merge]\n", '[merge]\nshard_size = "200KiB"\n')
    joined.manifest.write_text(text)
    run(merge.plan())
    plan = joined.plan()
    assert len({step.shard for step in plan.steps}) < len(plan.steps)
    run(plan)
    expected = merge.result()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in joined.result().items())


class UntiedT5(TinyModel):
    """T5 v1.1 and FLAN-T5: their files hold a head of its own, which the class ties to the embeddings."""

    def build(self) -> PreTrainedModel:
        """Its head differs from the embeddings."""
        model: Any = super().build()
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() + 1.0)
        return model  # type: ignore[no-any-return]


def test_a_head_that_the_class_ties_and_the_files_do_not_is_merged_where_the_manifest_unties_it(tmp_path: Path) -> None:
    known = TINY_MODELS["mt5"]
    fields = {name: getattr(known, name) for name in TinyModel.__dataclass_fields__}
    fields["keys"] = {**known.keys, "tie_word_embeddings": False}
    merge = make_tiny_merge(tmp_path, UntiedT5(**fields))
    with pytest.raises(InputError, match=r'lm_head.weight differs from shared.weight.* tied_head = "untie"'):
        merge.plan()
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace("[merge.others]\n", '[merge.others]\ntied_head = "untie"\n'))
    run(merge.plan())
    expected = merge.expected().tensors
    assert "lm_head.weight" in expected
    difference, name = worst_difference(merge.result(), expected)
    assert difference <= 1e-4, f"{name}: {difference:.1e}"


def test_stored_sounds_without_targets_are_refused(tmp_path: Path) -> None:
    merge = make_tiny_merge(tmp_path, replace(TINY_MODELS["whisper"], targets=None))
    with pytest.raises(InputError, match="expected a tensor decoder_input_ids, of what the decoder reads"):
        merge.plan()


@pytest.mark.parametrize("name", ["t5", slow("bart")])
def test_distances_are_those_of_the_whole_models_in_both_stacks(tmp_path: Path, name: str) -> None:
    merge = make_tiny_merge(tmp_path, TINY_MODELS[name])
    text = merge.manifest.read_text()
    table = re.search(r"\[candidates.calibration\]\n(.*?)\n\n", text, re.DOTALL)
    assert table is not None
    merge.manifest.write_text(text.replace("[resources]", f"[candidates.evaluation]\n{table[1]}\n\n[resources]", 1))
    merge.run()
    found = {each.after: each.l1 for each in representation_bias(merge.plan(), only=["regmean++"])}
    folders = merge.folders.candidates[1], merge.output
    own, merged = (hidden_states(load(merge.model, folder), merge.rows[0]) for folder in folders)
    expected = [float((a - b).abs().mean()) for a, b in zip(own, merged, strict=True)]
    encoder, decoder = (stack.num_blocks for stack in merge.plan().base.architecture.stacks)
    # What leaves a stack's last block has passed its final norm in the whole model.
    assert len(found) == encoder + decoder + 2
    names = ["stem", *(f"block {i}" for i in range(encoder - 1)), "stem of the decoder"]
    names += [f"block {encoder + i}" for i in range(decoder - 1)]
    assert [found[each] for each in names] == pytest.approx(expected, rel=1e-4)


def hidden_states(model: PreTrainedModel, rows: list[dict[str, Tensor]]) -> list[Tensor]:
    """What enters each block of the encoder and then of the decoder, of all rows: (T, D)."""
    with torch.no_grad():
        outputs = [model(**row, output_hidden_states=True) for row in rows]
    depths = ([*each.encoder_hidden_states[:-1], *each.decoder_hidden_states[:-1]] for each in outputs)
    return [torch.cat([states[0] for states in depth]) for depth in zip(*depths, strict=True)]
