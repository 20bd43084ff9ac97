"""Rules: which parameters they take, and what is said of those that take none."""

from typing import Literal

from regstream.manifest.rule_table import Rule
from regstream.manifest.rules import match_rule, nearest_names, rule_problems

NAMES: list[tuple[str, int | None]] = [
    ("model.embed_tokens.weight", None),
    *[
        (f"model.layers.{block}.{part}.weight", block)
        for block in range(6)
        for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
    ],
    ("model.norm.weight", None),
]


def rule(parameters: str, blocks: str | None = None, use: Literal["regress", "average", "base"] = "average") -> Rule:
    return Rule(parameters=parameters, blocks=blocks, use=use)


def test_the_first_match_wins() -> None:
    attention, everything = rule("*.self_attn.*", use="base"), rule("*")
    assert match_rule([attention, everything], "model.layers.0.self_attn.q_proj.weight", 0, 6) is attention
    assert match_rule([everything, attention], "model.layers.0.self_attn.q_proj.weight", 0, 6) is everything
    assert match_rule([attention], "model.layers.0.mlp.up_proj.weight", 0, 6) is None


def test_blocks_narrow_a_rule_and_leave_out_what_no_block_holds() -> None:
    late = rule("*", "late")
    assert [name for name, block in NAMES if match_rule([late], name, block, 6)] == [n for n, b in NAMES if b in (4, 5)]
    assert match_rule([rule("model.norm.*")], "model.norm.weight", None, 6)


def test_globs_tell_upper_case_from_lower() -> None:
    assert match_rule([rule("*.MLP.*")], "model.layers.0.mlp.up_proj.weight", 0, 6) is None


def test_rules_that_match_nothing_are_found() -> None:
    [problem] = rule_problems([rule("*.mlp.*", "0"), rule("*.self_atn.*"), rule("*norm*", "5")], NAMES, 6)
    assert problem.startswith("rules[1]: parameters: ")
    [problem] = rule_problems([rule("none", "6")], NAMES, 6)
    assert "names block 6" in problem


def test_the_nearest_names_are_written_once_for_all_blocks() -> None:
    names = [name for name, _ in NAMES]
    assert nearest_names("*.self_atn.*", names)[0] == "model.layers.*.self_attn.q_proj.weight"
    assert nearest_names("model.layers.0.mlp.upproj.weight", names, limit=1) == ["model.layers.*.mlp.up_proj.weight"]
    assert nearest_names("*", []) == []


def test_every_rule_without_effect_is_said_in_one_line() -> None:
    rules = [
        rule("*.mlp.*"),
        rule("*.mlp.up_proj.*"),
        rule("*.self_atn.*"),
        rule("*", "6"),
        rule("*embed*", "0-1"),
        rule("*"),
    ]
    found = rule_problems(rules, NAMES, 6)
    assert [problem.partition(":")[0] for problem in found] == ["rules[1]", "rules[2]", "rules[3]", "rules[4]"]
    assert "earlier rules match all 6 parameters" in found[0]
    assert '"*.self_atn.*" matches none of 20 parameters; the nearest: "model.layers.*.self_attn' in found[1]
    assert '"6" names block 6, but the model has 6 blocks, 0 to 5' in found[2]
    assert 'matches parameters, but none in blocks "0-1"' in found[3]
    assert rule_problems([rule("*")], NAMES, 6) == []
