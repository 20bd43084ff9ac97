"""Settings that rules give: which are refused, which have no effect, and what each parameter gets."""

import pytest

from merging import Merge, make_merge
from regstream.errors import ManifestError
from regstream.manifest.canonical import canonical_config
from regstream.manifest.read_manifest import parse_manifest
from regstream.manifest.schema import Manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.planning.step import PlannedParameter

RULE = '[[rules]]\nparameters = "*"\n'


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    return make_merge(tmp_path_factory.mktemp("merge"), candidates=2)


def read(merge: Merge, rules: str = "", *, keys: str = 'method = "ties"', **weights: str) -> Manifest:
    text = merge.manifest.read_text().replace('method = "regmean++"', keys).replace("\n[[cand", f"{rules}\n[[cand", 1)
    for name, given in weights.items():
        text = text.replace(f'name = "{name}"', f'name = "{name}"\n{given}')
    return parse_manifest(text, str(merge.manifest))


def parameters(plan: Plan) -> dict[str, PlannedParameter]:
    return {parameter.name: parameter for step in plan.steps for parameter in step.parameters}


REFUSED = {
    "nothing": (RULE, 'rules[0]: gives nothing; expected "use"'),
    "of another method": (
        RULE + "alpha = 0.5",
        'rules[0]: alpha: only method "regmean", "regmean++" or "regfilter" has this key',
    ),
    "out of range": (
        RULE + "density = [0.5, 2]",
        "rules[0]: density[1]: expected a number above 0, at most 1, found 2",
    ),
    "an empty list": (
        RULE + "density = []",
        "rules[0]: density: expected a number or a list of numbers, found an empty",
    ),
    "a weight of none": (
        RULE + "weight = 1",
        'rules[0]: candidate: missing; expected the name of the candidate whose "w',
    ),
    "a candidate alone": (
        RULE + 'candidate = "task0"',
        'rules[0]: candidate: expected "weight", "scale" or "density" with it',
    ),
    "no candidate": (
        RULE + 'candidate = "task2"\nweight = 1',
        'rules[0]: candidate: expected a candidate\'s name, found "task2"; did you mean "task',
    ),
    "a number of one candidate": (
        RULE + 'candidate = "task0"\nweight = 1\nuse = "average"',
        "rules[0]: use: not of one candidate; give it in a rule without candidate",
    ),
    "a scale beyond its range": (
        RULE + 'candidate = "task0"\nscale = -2000',
        "rules[0]: scale: expected a number from -1000 to 1000, found -2000",
    ),
    "a negative weight": (
        RULE + 'candidate = "task0"\nweight = [1, -1]',
        "rules[0]: weight[1]: expected a number from 0 on, found -1",
    ),
}


@pytest.mark.parametrize(("rules", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_rule_cannot_give_is_refused_with_its_key(merge: Merge, rules: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(merge, rules)
    assert [expected in problem for problem in caught.value.problems] == [True], caught.value.problems


def test_what_decides_how_a_merge_runs_is_one_for_all_parameters(merge: Merge) -> None:
    with pytest.raises(ManifestError, match=r"rules\[0\]: teacher: one for all parameters; set it in \[merge\]"):
        read(merge, RULE + "teacher = 0.5", keys='method = "featcal"')
    with pytest.raises(ManifestError, match=r"\[merge\] teacher: expected a number from 0 to 1, found a list of 2"):
        read(merge, keys='method = "featcal"\nteacher = [0.1, 0.5]')


def test_of_each_setting_the_first_rule_that_gives_it_wins(merge: Merge) -> None:
    rules = (
        '[[rules]]\nparameters = "*.q_proj.*"\nblocks = "1"\ndensity = 0.9\n'
        '[[rules]]\nparameters = "*.self_attn.*"\ndensity = [0.2, 0.4]\nscale = 2.0\n'
        f'{RULE}candidate = "task1"\nweight = [0, 2]\n'
    )
    found = parameters(make_plan(read(merge, rules, keys='method = "ties"\nscale = [0.5, 1.0]', task0="weight = 2")))
    settings = {name: (parameter.method.options.model_dump(), parameter.shares) for name, parameter in found.items()}
    assert settings["model.layers.1.self_attn.q_proj.weight"] == (
        {"density": 0.9, "scale": 2.0, "normalize": True},
        (4 / 3, 2 / 3),
    )
    assert settings["model.layers.1.self_attn.k_proj.weight"] == (
        {"density": pytest.approx(0.3), "scale": 2.0, "normalize": True}, (4 / 3, 2 / 3)
    )  # fmt: skip
    assert settings["model.layers.2.mlp.up_proj.weight"] == (
        {"density": 0.2, "scale": 1.0, "normalize": True},
        (1.0, 1.0),
    )
    assert settings["model.norm.weight"] == ({"density": 0.2, "scale": 0.5, "normalize": True}, (2.0, 0.0))
    assert found["model.layers.2.mlp.up_proj.weight"].method is found["model.layers.2.mlp.down_proj.weight"].method


UNUSED = {
    "a number of what is averaged": (
        '[[rules]]\nparameters = "*norm*"\nalpha = 0.5\n', "",
        "rules[0] '*norm*': alpha has no effect on the parameters that it matches",
    ),
    "a number that rules replace": (
        f"{RULE}alpha = 0.5\n", "", "[merge] alpha has no effect: rules give it to every parameter that it decides",
    ),
    "a weight that rules replace": (
        f'{RULE}candidate = "task0"\nweight = 2\n', "weight = 3",
        '[[candidates]] weight of "task0" has no effect: rules give it to every parameter that it decides',
    ),
    "a scale that is not read": (
        f'{RULE}candidate = "task0"\nscale = 2\n', "",
        "rules[0] '*': scale of \"task0\" has no effect on the parameters that it matches",
    ),
    "a candidate left out": ("", "weight = 0", 'candidate "task0": its weight is 0 everywhere, which leaves it out'),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "of_candidate", "expected"), UNUSED.values(), ids=UNUSED.keys())
def test_settings_without_effect_are_named(merge: Merge, rules: str, of_candidate: str, expected: str) -> None:
    plan = make_plan(read(merge, rules, keys='method = "regmean++"\nalpha = 0.9', task0=of_candidate))
    assert [line for line in plan.warnings if expected in line], plan.warnings
    assert not any("effect" in line for line in make_plan(read(merge, keys='method = "regmean++"')).warnings)


def test_a_rule_whose_setting_earlier_rules_give_is_refused(merge: Merge) -> None:
    with pytest.raises(
        ManifestError, match=r"rules\[1\]: density: earlier rules give density to all \d+ parameters of"
    ):
        make_plan(read(merge, f'{RULE}density = 0.5\n[[rules]]\nparameters = "*norm*"\ndensity = 0.1\n'))
    make_plan(read(merge, f'{RULE}density = 0.5\n[[rules]]\nparameters = "*norm*"\nscale = 0.1\n'))


def test_a_plan_has_what_each_block_gets_of_settings_that_vary(merge: Merge) -> None:
    rules = '[[rules]]\nparameters = "*norm*"\nblocks = "0"\ndensity = 0.5\n'
    plan = make_plan(read(merge, rules, keys='method = "ties"\nscale = [0.5, 1.0]', task1="weight = 3"))
    found = {setting.key: setting.record()["steps"] for setting in plan.varying_settings}
    assert found.keys() == {"density", "scale"}
    assert found["density"]["block 0"] == {"values": [0.2, 0.5], "parameters": [7, 2]}
    assert [found["scale"][f"block {block}"]["values"] for block in range(3)] == [[0.5], [0.75], [1.0]]
    assert make_plan(read(merge)).varying_settings == ()


def test_a_list_of_one_value_is_the_number_and_ratios_of_weights_count_where_they_are_numbers(merge: Merge) -> None:
    same = [
        read(merge, keys='method = "ties"\ndensity = 0.3', task0="weight = 2", task1="weight = 4"),
        read(merge, keys='method = "ties"\ndensity = [0.3]', task0="weight = [1]", task1="weight = [2, 2]"),
    ]
    assert canonical_config(same[0]) == canonical_config(same[1])
    rule = f'{RULE}blocks = "0"\ncandidate = "task0"\nweight = 1\n'
    by_rule = [read(merge, rule, task1=f"weight = {weight}", task0=f"weight = {weight}") for weight in (1, 2)]
    assert canonical_config(by_rule[0]) != canonical_config(by_rule[1])
