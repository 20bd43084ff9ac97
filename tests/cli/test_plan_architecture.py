"""`regstream plan` shows what was found in the model, and says nothing twice."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tiny_merge import make_tiny_merge
from tiny_models.registry import TINY_MODELS

Invoke = Callable[..., Result]


def shown(text: str) -> list[str]:
    """The lines before the table of steps."""
    return text[: text.index("\nstep ")].splitlines()


def test_a_decoder_takes_four_lines(invoke: Invoke, fresh: Path) -> None:
    assert shown(invoke("plan", fresh).stdout) == [
        "LlamaForCausalLM: 5 blocks in model.layers",
        "blocks 0 to 4: 4 input groups: q_proj, k_proj, v_proj | o_proj | gate_proj, up_proj | down_proj",
        "outside the blocks, average: final norm (model.norm)",
        "outside the blocks, base: embeddings (model.embed_tokens), head (lm_head)",
    ]


def test_averaging_has_no_input_groups(invoke: Invoke, fresh: Path) -> None:
    fresh.write_text(fresh.read_text().replace('"regmean++"', '"average"'))
    assert not [line for line in shown(invoke("plan", fresh).stdout) if "input group" in line]


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    """A manifest of models with two kinds of blocks in turn."""
    return make_tiny_merge(tmp_path, TINY_MODELS["lfm2"]).manifest


def test_blocks_with_the_same_groups_share_a_line(invoke: Invoke, hybrid: Path) -> None:
    lines = shown(invoke("plan", hybrid).stdout)
    assert lines[1] == "blocks 0, 2: 4 input groups: in_proj | out_proj | w1, w3 | w2"
    assert lines[2] == "blocks 1, 3: 4 input groups: q_proj, k_proj, v_proj | out_proj | w1, w3 | w2"


def test_what_is_not_regressed_is_said_once_by_a_plan_and_by_a_run(invoke: Invoke, hybrid: Path) -> None:
    planned = invoke("plan", hybrid)
    assert planned.output.count("a convolution") == 1
    assert "not regressed, average: model.layers.*.conv.conv.weight (2 tensors): a convolution" in planned.stdout
    merged = invoke("run", hybrid)
    assert merged.exit_code == 0
    assert merged.stderr.count("not regressed, so averaged: model.layers.*.conv.conv.weight (2 tensors)") == 1


def test_the_same_as_json(invoke: Invoke, hybrid: Path) -> None:
    record = json.loads(invoke("plan", hybrid, "--json").stdout)
    found = record["architecture"]
    assert (found["model_class"], found["blocks"], found["num_blocks"]) == ("Lfm2ForCausalLM", "model.layers", 4)
    assert [kind["blocks"] for kind in found["kinds"]] == [[0, 2], [1, 3]]
    assert found["kinds"][0]["groups"][0] == ["conv.in_proj"]
    assert {part["part"]: part["rule"] for part in found["parts"]} == {"embeddings": "average", "final_norm": "average"}
    (left_out,) = found["not_regressed"]
    assert (left_out["reason"], left_out["rule"], left_out["num_matrices"]) == ("a convolution", "average", 2)
    assert sum("a convolution" in warning for warning in record["warnings"]) == 1
