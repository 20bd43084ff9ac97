"""Each tensor of an input that the result lacks, or has from one checkpoint alone, has a line in plan and card."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

import parts_of_models as parts
from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.output.model_card import model_card
from regstream.planning.plan import Plan

SHAPE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VISION: dict[str, Any] = {**SHAPE, "image_size": 16, "patch_size": 8}
BERT = BertConfig(**SHAPE, vocab_size=64, max_position_embeddings=64)


def clip() -> PreTrainedModel:
    text = {**SHAPE, "vocab_size": 64, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=8))


def llava() -> PreTrainedModel:
    vision = {**VISION, "model_type": "clip_vision_model"}
    text = {**parts.LLAMA, "model_type": "llama"}
    config: dict[str, Any] = {"vision_config": vision, "text_config": text, "image_token_id": 60}
    return LlavaForConditionalGeneration(LlavaConfig(**config))


def lines(plan: Plan) -> list[str]:
    return [*plan.warnings, *model_card(plan).splitlines()]


def named_in(plan: Plan, name: str) -> list[str]:
    """The lines that name a tensor, by its name or by a pattern that it fits."""
    parts = ["*" if part.isdecimal() else part for part in name.split(".")]
    patterns = [rf"{re.escape('.'.join(parts[:end]))}\.\*(?=$|,| \(| and )" for end in range(1, len(parts))]
    pattern = rf"(^|[ ,])({re.escape('.'.join(parts))}\b|{'|'.join(patterns)})"
    return [line for line in lines(plan) if re.search(pattern, line)]


def check_every_tensor(plan: Plan) -> None:
    """Each tensor of each input is merged, or two lines say what became of it: one of the plan, one of the card."""
    merged = {p.name: p for step in plan.steps for p in step.parameters}
    for index, checkpoint in enumerate((plan.base, *(c.checkpoint for c in plan.candidates))):
        assert not isinstance(checkpoint, AdaptedCheckpoint)
        for name in checkpoint.tensor_index:
            parameter = merged.get(checkpoint.architecture.model_name(name))
            if parameter is None:
                assert any(checkpoint.label in line or "candidates" in line for line in named_in(plan, name)), name
                assert any(line.startswith(f"- left out of {checkpoint.label}:") for line in named_in(plan, name)), name
            elif index == 0 and parameter.rule == "base":
                assert any(line.startswith("- of the base alone: ") for line in lines(plan)), name


def test_a_classifiers_head_that_nobody_asked_for(tmp_path: Path) -> None:
    base = parts.save(tmp_path / "base", LlamaForCausalLM(parts.llama()), 0)
    make: Any = LlamaForSequenceClassification  # untyped
    scored = parts.save(tmp_path / "scored", make(parts.llama(num_labels=3)), 1)
    plan = parts.plan_of(parts.manifest(tmp_path, base, {"scored": scored}, others={"head": "base"}))
    check_every_tensor(plan)
    assert any(line.startswith('candidate "scored": left out: score.weight: ') for line in plan.warnings)
    assert any('"scored": lacks lm_head.weight' in line for line in plan.warnings)


def with_tensor(name: str, *shape: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: torch.ones(shape)})


@pytest.mark.parametrize("name", ["v_head.summary.weight", "value_head.weight", "projector.net.0.weight"])
def test_a_further_head_of_a_candidate(tmp_path: Path, name: str) -> None:
    base = parts.save(tmp_path / "base", LlamaForCausalLM(parts.llama()), 0)
    tuned = parts.save(tmp_path / "tuned", LlamaForCausalLM(parts.llama()), 1, with_tensor(name, 1, 16))
    plan = parts.plan_of(parts.manifest(tmp_path, base, {"tuned": tuned, "same": base}))
    check_every_tensor(plan)
    assert any(f'candidate "tuned": left out: {name.replace(".0.", ".*.")}' in line for line in plan.warnings)


@pytest.mark.parametrize("whole", ["base", "candidate"])
def test_the_rest_of_a_whole_clip(tmp_path: Path, whole: str) -> None:
    tower = CLIPVisionModel(clip().config.vision_config)
    models = (clip(), tower) if whole == "base" else (tower, clip())
    base, tuned = (parts.save(tmp_path / str(seed), model, seed) for seed, model in enumerate(models))
    check_every_tensor(parts.plan_of(parts.manifest(tmp_path, base, {"tuned": tuned})))


@pytest.mark.parametrize("base_is_headless", [False, True])
def test_a_language_models_head_beside_an_encoder(tmp_path: Path, *, base_is_headless: bool) -> None:
    models = (
        (BertModel(BERT), BertForMaskedLM(BERT)) if base_is_headless else (BertForMaskedLM(BERT), BertForMaskedLM(BERT))
    )
    base, tuned = (parts.save(tmp_path / str(seed), model, seed) for seed, model in enumerate(models))
    check_every_tensor(parts.plan_of(parts.manifest(tmp_path, base, {"tuned": tuned})))


@pytest.mark.parametrize("use", ["base", "first"])
def test_a_changed_tower_that_is_left_out(tmp_path: Path, use: str) -> None:
    base, first, second = (parts.save(tmp_path / str(seed), llava(), seed) for seed in range(3))
    plan = parts.plan_of(parts.manifest(tmp_path, base, {"first": first, "second": second}, others={"towers": use}))
    check_every_tensor(plan)
    [line] = [line for line in plan.warnings if "the towers differ" in line]
    assert line.endswith(f'as [merge.others] towers = "{use}" says')
    assert ('"first"' in line.partition(":")[0]) == (use == "base")
    assert "of the base alone" in model_card(plan) or use != "base"


def test_nothing_is_said_of_towers_that_are_averaged(tmp_path: Path) -> None:
    base, first, second = (parts.save(tmp_path / str(seed), llava(), seed) for seed in range(3))
    plan = parts.plan_of(parts.manifest(tmp_path, base, {"first": first, "second": second}))
    assert not any("the towers differ" in line for line in plan.warnings)
    assert "not merged" not in model_card(plan)
