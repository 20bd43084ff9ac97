"""What recipes of mergekit become, and what is refused with what advice."""

import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from docs.recipes import row_of, rows_of_table
from mergekit_runs import PARTIAL, convertible, outcome, recipe_names
from regstream.errors import ManifestError
from regstream.recipes.manifest_text import manifest_text
from regstream.recipes.read_recipe import parse_recipe
from regstream.recipes.translate import translate

TWO = """
models:
  - model: org/base
  - model: org/math
    parameters: {weight: 0.5}
  - model: org/code@v2
    parameters: {weight: 0.3}
base_model: org/base
"""
MEAN = TWO.replace("base_model: org/base\n", "").replace("  - model: org/base\n", "")
SLICES = """
merge_method: slerp
base_model: org/math
slices:
  - sources:
      - {model: org/math, layer_range: [0, 8]}
      - {model: org/code, layer_range: [0, 8]}
parameters: {t: 0.4}
"""


def convert(text: str) -> dict[str, Any]:
    """The tables of a recipe's manifest."""
    return tomllib.loads(manifest_text(translate(parse_recipe(text, "r.yml")), "r.yml", str))


def refusal(text: str) -> str:
    """The one line that a recipe is refused with."""
    with pytest.raises(ManifestError) as caught:
        convert(text)
    [line] = caught.value.problems
    assert line.startswith("r.yml:")
    return line


def test_the_table_has_what_each_recipe_becomes() -> None:
    """How far results are from mergekit's is measured by `test_equals_mergekit.py`."""
    rows = rows_of_table()
    assert list(rows) == recipe_names()
    for name in recipe_names():
        assert rows[name].startswith(row_of(name))


@pytest.mark.parametrize("name", [*convertible(), PARTIAL])
def test_each_of_mergekits_examples_becomes_toml(name: str) -> None:
    text, _ = outcome(name)
    assert text is not None
    tables = tomllib.loads(text)
    assert {"merge", "candidates"} <= tables.keys()
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("method", "expected", "keys"),
    [
        ("linear", {"method": "average"}, ["weight"]),
        ("task_arithmetic", {"method": "task_arithmetic"}, ["scale"]),
        ("ties", {"method": "ties", "scale": 1.0, "normalize": True, "density": 1.0}, ["weight"]),
        ("dare_linear", {"method": "dare_linear", "density": 1.0, "rescale": "norm"}, ["scale"]),
        ("dare_ties", {"method": "dare_ties", "normalize": False, "density": 1.0, "rescale": "norm"}, ["scale"]),
    ],
)
def test_methods_with_weights(method: str, expected: dict[str, Any], keys: list[str]) -> None:
    tables = convert(f"merge_method: {method}{MEAN if method == 'linear' else TWO}")
    base = {} if method == "linear" else {"base": "org/base"}
    assert tables["merge"] == {**expected, **base, "output": "merged"}
    [key] = keys
    assert tables["candidates"] == [
        {"name": "math", "model": "org/math", key: 0.5},
        {"name": "code", "model": "org/code@v2", key: 0.3},
    ]


def test_model_stock_and_slerp() -> None:
    assert convert(f"merge_method: model_stock{TWO}")["merge"]["base"] == "org/base"
    tables = convert(SLICES)
    assert tables["merge"] == {"method": "slerp", "output": "merged", "t": 0.4}
    assert [table["model"] for table in tables["candidates"]] == ["org/math", "org/code"]


def test_lambda_multiplies() -> None:
    tables = convert(f"merge_method: task_arithmetic{TWO}parameters: {{lambda: 0.1}}")
    assert [table["scale"] for table in tables["candidates"]] == [0.05, 0.03]
    assert convert(f"merge_method: ties{TWO}parameters: {{lambda: 0.1}}")["merge"]["scale"] == 0.1
    tables = convert(f"merge_method: dare_linear{TWO}parameters: {{lambda: 0.5, normalize: true}}")
    assert tables["merge"]["scale"] == 0.25
    assert [table["weight"] for table in tables["candidates"]] == [0.5, 0.3]


def test_what_is_nearer_to_a_model_goes_before() -> None:
    text = f"merge_method: ties{TWO}".replace("{weight: 0.3}", "{weight: 0.3, density: 0.2}")
    tables = convert(f"{text}parameters: {{density: 0.6, weight: 9}}")
    assert [table["density"] for table in tables["candidates"]] == [0.6, 0.2]
    assert [table["weight"] for table in tables["candidates"]] == [0.5, 0.3]


def test_filters_become_rules_until_one_value_covers_the_rest() -> None:
    t = "[{filter: self_attn, value: [0, 1]}, {filter: 'a[b', value: 0.2}, {value: 0.7}, {filter: mlp, value: 1}]"
    tables = convert(SLICES.replace("t: 0.4", f"t: {t}"))
    assert tables["rules"] == [{"parameters": "*self_attn*", "t": [0.0, 1.0]}, {"parameters": "*a[[]b*", "t": 0.2}]
    assert tables["merge"]["t"] == 0.7


def test_filters_of_a_model_fall_back_to_what_all_have() -> None:
    text = f"merge_method: ties{TWO}parameters: {{weight: [1, 0.5]}}"
    tables = convert(text.replace("{weight: 0.5}", "{weight: {filter: mlp, value: 0.1}}"))
    assert tables["rules"] == [{"parameters": "*mlp*", "candidate": "math", "weight": 0.1}]
    assert tables["candidates"][0]["weight"] == [1.0, 0.5]


def test_a_gradient_of_one_number_is_a_number() -> None:
    assert convert(SLICES.replace("t: 0.4", 't: ["3e-1", 0.3]'))["merge"]["t"] == 0.3


def test_names_are_made_unique() -> None:
    models = ["a/Base", "b/base", "runs/x+lora/12:30/", "..//.x"]
    text = "merge_method: linear\nparameters: {weight: 1}\nmodels:\n" + "".join(f"  - model: {m}\n" for m in models)
    names = [table["name"] for table in convert(text)["candidates"]]
    assert names == ["Base-2", "base-3", "12-30", "x"]


def test_an_adapter_and_a_model_of_keys() -> None:
    text = dedent("""
        merge_method: task_arithmetic
        base_model: {model: {path: org/base, revision: v1}}
        models:
          - model: org/base@v1+org/lora
            parameters: {weight: 1}
    """)
    tables = convert(text)
    assert tables["merge"]["base"] == "org/base@v1"
    assert tables["candidates"] == [{"name": "lora", "model": "org/base@v1", "adapter": "org/lora", "scale": 1.0}]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("tokenizer_source: base", {}),
        ("tokenizer_source: org/base", {}),
        ("tokenizer_source: union", {"tokenizer": "union"}),
        ("tokenizer_source: org/math", {"tokenizer": "math"}),
        ("tokenizer: {source: {model: {path: org/code, revision: v2}}}", {"tokenizer": "code"}),
        ("chat_template: org/math", {"chat_template": "math"}),
        ("chat_template: org/base", {"chat_template": "base"}),
        ("chat_template: templates/chat.jinja", {"chat_template": "./templates/chat.jinja"}),
        ("chat_template: auto", {}),
        ("tokenizer: {pad_to_multiple_of: 64}", {"tokenizer": "union", "pad_to_multiple_of": 64}),
        ("dtype: torch.float16", {"dtype": "float16"}),
        ("dtype: float32\nout_dtype: bfloat16", {"dtype": "bfloat16"}),
    ],
)
def test_tokenizer_and_dtype(settings: str, expected: dict[str, Any]) -> None:
    tables = convert(f"merge_method: task_arithmetic{TWO}{settings}")
    assert tables["merge"] == {"method": "task_arithmetic", "base": "org/base", "output": "merged", **expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"merge_method: della{TWO}", "merge_method: della has no counterpart; the nearest is dare_ties"),
        (f"merge_method: tias{TWO}", "merge_method: tias has no counterpart; the nearest is ties"),
        (f"merge_method: linear{TWO}", "weight: missing of org/base; mergekit needs it as well"),
        (f"merge_method: linear{MEAN}parameters: {{normalize: false}}", "found false with weights that sum up to 0.8"),
        (f"merge_method: linear{MEAN}align: x", "align: no key of a recipe"),
        (f"merge_method: ties{MEAN}", "base_model: missing; ties needs it, in mergekit too"),
        (f"merge_method: ties{TWO}parameters: {{densty: 1}}", "parameters.densty: no parameter of ties"),
        (f"merge_method: ties{TWO}parameters: {{rescale: true, density: 0.5}}", "the nearest is dare_linear or dare_"),
        (f"merge_method: ties{TWO}parameters: {{normalize: [0, 1]}}", "expected true or false for the whole model"),
        (f"merge_method: model_stock{TWO}parameters: {{filter_wise: true}}", "filter_wise: found true"),
        (f"merge_method: passthrough{TWO}", "passthrough takes one model, found 3"),
        (f"merge_method: slerp{TWO}", "models: slerp takes the base and one other model, found 2 others"),
        (SLICES.replace("t: 0.4", "t: 1.5"), "parameters.t: expected numbers from 0 to 1"),
        (SLICES.replace("t: 0.4", "t: x"), 'expected a number or a list of numbers, found "x"'),
        (SLICES.replace("t: 0.4", "t: [{filter: mlp, value: 1}]"), "t: missing for what no filter covers"),
        (SLICES.replace("[0, 8]}", "[0, 7]}", 1), "ranges of 7, 8 layers"),
        (SLICES.replace("[0, 8]", "[4, 8]"), "which is not all layers of a model"),
        (f"merge_method: linear{MEAN}models: 3", "models: expected a list, found 3"),
        (f"merge_method: linear{MEAN}dtype: int8", "dtype: expected float32, float16, bfloat16"),
        (f"merge_method: ties{TWO}tokenizer: {{tokens: {{a: 1}}}}", 'the nearest is tokenizer = "union"'),
        (f"merge_method: ties{TWO}tokenizer_source: org/other", "expected base, union or a model that is merged"),
        (f"merge_method: ties{TWO}".replace("0.5", "-0.5"), "found -0.5 with normalize: true; a weight is a share"),
        ("a: [", "invalid YAML"),
        ('[merge]\nmethod = "ties"\n', "expected a recipe of mergekit in YAML, found a manifest in TOML; merge with `"),
        ("merge_method: ties\n---\nmerge_method: ties", "found 2 recipes in one file"),
        ("- 1", "expected a recipe of mergekit, found no keys"),
    ],
)
def test_what_no_manifest_says_is_refused_in_one_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_model_of_weight_0_is_left_out() -> None:
    text = manifest_text(translate(parse_recipe(f"merge_method: ties{TWO}".replace("0.3", "0"), "r.yml")), "r.yml", str)
    assert "org/code@v2: left out: its weight is 0" in text
    assert [table["name"] for table in tomllib.loads(text)["candidates"]] == ["math"]


def test_the_first_model_of_a_mean_stays_whatever_it_weighs() -> None:
    tables = convert(f"merge_method: linear{MEAN}".replace("0.5", "0"))
    assert [(table["name"], table["weight"]) for table in tables["candidates"]] == [("math", 0.0), ("code", 0.3)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("chat_template: auto", 'chat_template: "auto", the template that most models have, is left out, and the base'),
        ("chat_template: chatml", 'chat_template: "chatml" is left out, and the base\'s stays'),
        (f"chat_template: '{'{{ messages }}' * 4}'", "chat_template: a text of its own is left out"),
        ("chat_template: auto\ntokenizer_source: org/math", 'left out, and that of "math" stays'),
    ],
)
def test_templates_that_mergekit_takes_are_left_out_and_named(settings: str, expected: str) -> None:
    draft = translate(parse_recipe(f"merge_method: ties{TWO}{settings}", "r.yml"))
    assert any(expected in remark for remark in draft.remarks)
    assert "chat_template" not in draft.merge


def test_a_file_of_a_template_is_where_the_manifest_finds_it() -> None:
    draft = translate(parse_recipe(f"merge_method: linear{MEAN}chat_template: chat.jinja", "r.yml"))
    tables = tomllib.loads(manifest_text(draft, "r.yml", lambda path: f"../{path}"))
    assert tables["merge"]["chat_template"] == ".././chat.jinja"


def test_no_candidate_is_named_union() -> None:
    text = f"merge_method: linear{MEAN}tokenizer_source: union".replace("org/math", "org/Union")
    assert [table["name"] for table in convert(text)["candidates"]] == ["Union-2", "code"]


def test_what_changes_nothing_is_said(tmp_path: Path) -> None:
    recipe = parse_recipe(f"merge_method: model_stock{TWO}parameters: {{int8_mask: true}}\nname: x", "r.yml")
    remarks = "\n".join(translate(recipe).remarks)
    assert "parameters.int8_mask: left out: it changes no value" in remarks
    assert "models[1].parameters.weight: left out: model_stock does not read it, in mergekit either" in remarks
    assert "name: left out: mergekit-yaml ignores it" in remarks
