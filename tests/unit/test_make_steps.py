"""Steps: what each writes, in which order, what becomes of every parameter, and who needs hidden states."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest

from architectures import clip_vision, llama
from regstream.errors import ManifestError
from regstream.manifest.references import ModelRef
from regstream.manifest.rule_table import Rule
from regstream.manifest.schema import Candidate, Manifest, Merge, NonBlockParameters
from regstream.methods import make_method
from regstream.models.architecture.architecture import Architecture, Norm
from regstream.planning.make_steps import make_steps
from regstream.planning.step import Step

BLOCK = {
    "self_attn.q_proj.weight": (8, 8), "self_attn.k_proj.weight": (4, 8), "self_attn.v_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8), "mlp.gate_proj.weight": (16, 8), "mlp.up_proj.weight": (16, 8),
    "mlp.down_proj.weight": (8, 16), "input_layernorm.weight": (8,), "self_attn.q_proj.bias": (8,),
}  # fmt: skip
LINEARS = 7
MAX_BLOCKS = 11


def shapes(num_blocks: int, *, tied: bool = False) -> dict[str, tuple[int, ...]]:
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32, 8)}
    for block in reversed(range(num_blocks)):  # in no helpful order
        result |= {f"model.layers.{block}.{name}": shape for name, shape in reversed(BLOCK.items())}
    return result | {"model.norm.weight": (8,)} | ({} if tied else {"lm_head.weight": (32, 8)})


def steps(
    method: str = "regmean++",
    rules: Sequence[Rule] = (),
    *,
    num_blocks: int = 6,
    others: NonBlockParameters | None = None,
    architecture: Architecture | None = None,
    names: dict[str, tuple[int, ...]] | None = None,
    shard_size: str | None = None,
) -> tuple[Step, ...]:
    base: Any = ModelRef(hub_id="org/base")
    output: Any = "/out"
    merge = Merge(method=method, base=base, output=output, others=others or NonBlockParameters(), shard_size=shard_size)  # type: ignore[arg-type]
    manifest = Manifest(merge=merge, rules=tuple(rules), candidates=(Candidate(name="a", model=base),))
    made = make_method(merge.method, merge.options)
    return make_steps(manifest, made, architecture or llama(MAX_BLOCKS), names or shapes(num_blocks))


def rule(parameters: str, use: str, blocks: str | None = None) -> Rule:
    return Rule(parameters=parameters, use=use, blocks=blocks)  # type: ignore[arg-type]


def uses(made: Sequence[Step]) -> dict[str, str]:
    return {tensor.name: tensor.rule for step in made for tensor in step.parameters}


def test_stem_every_block_and_head_come_in_order_with_their_shards() -> None:
    made = steps(num_blocks=11)
    assert [step.name for step in made] == ["stem", *(f"block {index}" for index in range(11)), "head"]
    assert [step.index for step in made] == list(range(13))
    assert [step.depth for step in made] == [-1, *range(11), -1]
    assert [step.shard for step in made][::12] == [
        "model-00001-of-00013.safetensors",
        "model-00013-of-00013.safetensors",
    ]


@pytest.mark.parametrize("size", [1, 3000, 5000, 12000, 10**9])
def test_consecutive_steps_share_a_shard_up_to_its_size(size: int) -> None:
    made = steps(num_blocks=11, shard_size=f"{size}B")
    shards = [(shard, list(sharing)) for shard, sharing in groupby(made, key=lambda step: step.shard)]
    count = len(shards)
    assert [shard for shard, _ in shards] == [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
    taken = [[4 * sum(map(math.prod, step.shapes.values())) for step in sharing] for _, sharing in shards]
    assert all(len(sizes) == 1 or sum(sizes) <= size for sizes in taken)
    assert all(sum(sizes) + following[0] > size for sizes, following in pairwise(taken))
    assert count == {1: 13, 10**9: 1}.get(size, count)


@pytest.mark.parametrize("method", ["regmean++", "regmean", "average", "task_arithmetic"])
def test_every_parameter_is_in_exactly_one_step(method: str) -> None:
    made = steps(method)
    names = [tensor.name for step in made for tensor in step.parameters]
    assert sorted(names) == sorted(shapes(6))
    assert {name: shape for step in made for name, shape in step.shapes.items()} == shapes(6)


def test_a_block_begins_with_its_groups_and_ends_with_the_rest() -> None:
    block = steps()[3]
    assert list(block.regressed) == [group.name for group in llama(MAX_BLOCKS).groups[2]]
    assert [tensor.group is None for tensor in block.parameters] == [False] * LINEARS + [True] * 2
    assert {tensor.name for tensor in block.not_regressed} == {
        "model.layers.2.input_layernorm.weight", "model.layers.2.self_attn.q_proj.bias"
    }  # fmt: skip
    assert {t.linear for t in block.regressed["input of mlp.gate_proj"]} == {"mlp.gate_proj", "mlp.up_proj"}
    assert block.num_regressed == LINEARS


def test_what_is_as_published_for_the_family() -> None:
    made = uses(steps())
    assert [made[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")] == [
        "base", "average", "base"
    ]  # fmt: skip
    assert made["model.layers.0.self_attn.q_proj.bias"] == "average"
    assert made["model.layers.0.self_attn.q_proj.weight"] == "regress"


@pytest.mark.parametrize("method", ["regmean++", "average", "task_arithmetic"])
def test_others_are_as_asked_for(method: str) -> None:
    made = uses(steps(method, others=NonBlockParameters(embeddings="average", final_norm="base", head="average")))
    assert [made[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")] == [
        "average", "base", "average"
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "use"), [("average", "average"), ("task_arithmetic", "combine")])
def test_methods_that_regress_nothing_treat_all_alike(method: str, use: str) -> None:
    assert set(uses(steps(method)).values()) == {use}


FEEDS: dict[str, tuple[list[Rule], list[bool]]] = {
    "no rules": ([], [True] * 6 + [False, False]),
    "late averaged": ([rule("*.layers.*", "average", "late")], [True] * 4 + [False] * 4),
    "early averaged": ([rule("*.layers.*", "average", "early")], [True] * 6 + [False] * 2),
    "only the first regressed": ([rule("*.layers.*", "average", "1-5")], [True] + [False] * 7),
    "one linear of the last block": (
        [rule("*.mlp.down_proj.*", "regress", "3"), rule("*.layers.*", "base")],
        [True] * 4 + [False] * 4,
    ),
    "nothing regressed": ([rule("*.layers.*", "average")], [False] * 8),
}


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize("method", ["regmean++", "regmean"])
def test_hidden_states_go_as_far_as_the_last_block_that_is_regressed(method: str, kind: str) -> None:
    rules, feeds = FEEDS[kind]
    assert [step.writes_hidden_states for step in steps(method, rules)] == feeds


@pytest.mark.parametrize("method", ["average", "task_arithmetic"])
def test_methods_of_weights_alone_need_no_hidden_states(method: str) -> None:
    assert not any(step.writes_hidden_states for step in steps(method))


def test_the_first_rule_wins_and_what_cannot_be_regressed_is_averaged() -> None:
    made = uses(steps(rules=[rule("*.0.*o_proj*", "base"), rule("*", "regress", "0"), rule("*.layers.*", "base")]))
    assert made["model.layers.0.self_attn.o_proj.weight"] == "base"
    assert made["model.layers.0.self_attn.q_proj.weight"] == "regress"
    assert made["model.layers.0.self_attn.q_proj.bias"] == "average"
    assert made["model.layers.0.input_layernorm.weight"] == "average"
    assert {made[f"model.layers.1.{name}"] for name in BLOCK} == {"base"}


def test_a_rule_reaches_what_no_block_holds() -> None:
    made = uses(steps(rules=[rule("lm_head.*", "average"), rule("model.norm.*", "base")]))
    assert (made["lm_head.weight"], made["model.norm.weight"]) == ("average", "base")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([rule("*.attn.*", "average")], 'rules\\[0\\]: parameters: "\\*.attn.\\*" matches none'),
        ([rule("*", "base", "6")], 'rules\\[0\\]: blocks: "6" names block 6, but the model has 6 blocks'),
        ([rule("*", "base"), rule("*.mlp.*", "average")], "rules\\[1\\]: parameters: earlier rules match all"),
    ],
)
def test_a_rule_without_effect_is_refused(rules: list[Rule], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        steps(rules=rules)


def test_every_bad_rule_is_named_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        steps(rules=[rule("nothing", "base"), rule("*", "base", "9")])
    assert len(caught.value.problems) == 2


def test_a_tied_head_leaves_the_norm_alone_in_its_step() -> None:
    assert [tensor.name for tensor in steps(names=shapes(2, tied=True))[-1].parameters] == ["model.norm.weight"]


def test_a_model_without_anything_behind_its_blocks_has_no_head_step() -> None:
    names = {"embeddings.class_embedding": (8,), "encoder.layers.0.mlp.fc1.weight": (16, 8)}
    made = steps(architecture=clip_vision(), names=names)
    assert [step.name for step in made] == ["stem", "block 0"]
    assert made[-1].shard == "model-00002-of-00002.safetensors"


def calibrated(*rules: Rule) -> dict[str, tuple[str, str | None]]:
    """What becomes of the parameters of the last block that are no weights of linears, and with what they are solved.

    The block's norms are known; it has another vector.
    """
    architecture = replace(llama(MAX_BLOCKS), norms=((Norm(name="input_layernorm", token_axis=1),),) * MAX_BLOCKS)
    names = shapes(2) | {"model.layers.1.self_attn.gains": (8,), "model.layers.1.self_attn.o_proj.bias": (8,)}
    block = steps("featcal", rules, architecture=architecture, names=names)[2]
    return {p.block_name: (p.rule, p.group) for p in block.parameters if not p.is_linear}


def test_biases_are_calibrated_with_their_linears_and_norms_by_themselves() -> None:
    assert calibrated() == {
        "self_attn.q_proj.bias": ("calibrate", "input of self_attn.q_proj"),
        "self_attn.o_proj.bias": ("calibrate", "input of self_attn.o_proj"),
        "input_layernorm.weight": ("calibrate", "input_layernorm"),
        "self_attn.gains": ("combine", None),
    }
    assert calibrated(rule("*", "regress")) == calibrated()


def test_a_bias_whose_weight_is_not_regressed_is_not_calibrated() -> None:
    found = calibrated(rule("*.q_proj.weight", "average"), rule("*layernorm*", "base"))
    assert found["self_attn.q_proj.bias"] == ("combine", None)
    assert found["self_attn.o_proj.bias"] == ("calibrate", "input of self_attn.o_proj")
    assert found["input_layernorm.weight"] == ("base", None)
