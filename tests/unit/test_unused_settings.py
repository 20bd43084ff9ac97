"""Settings without effect are named, with the key and why; settings with one are not."""

import pytest

import checkpoints
from merging import Merge, make_merge
from regstream.manifest.read_manifest import parse_manifest
from regstream.planning.planning import make_plan

SEED = "no rows are sampled: no set that is read has `rows`"
CASES: dict[str, tuple[str, checkpoints.Family, str, str, str]] = {
    "seed": ("regmean", "llama", '"merged"\n', '"merged"\nseed = 1\n', f"[merge] seed has no effect: {SEED}"),
    "norm": ("regmean", "bert", "\n[[cand", '\nothers.final_norm = "base"\n[[cand', "[merge.others] final_norm has no"),
    "head": (
        "average",
        "llama-tied",
        "\n[[cand",
        '\nothers.head = "base"\n[[cand',
        "[merge.others] head has no effect",
    ),
    "vocabulary": ("regmean", "clip", "\n[[cand", '\nothers.vocabulary = "base"\n[[cand', "vocabulary has no effect"),
    "calibration": ("average", "llama", "", "", '[[candidates]] calibration of "task0", "task1" has no effect: method'),
    "field": ("regmean", "clip", "batch_rows = 4", 'field = "x"', '[[candidates]] calibration.field of "task0" has no'),
    "max_length": ("regmean", "vit", "batch_rows = 4", "max_length = 9", "calibration.max_length of "),
    "device_memory": (
        "regmean",
        "llama",
        'e = "cpu"',
        'e = "cpu"\ndevice_memory = "8GiB"',
        "device_memory has no effect",
    ),
    "weight": (
        "regmean",
        "llama",
        'name = "task1"',
        'name = "task1"\nweight = 1e-30',
        'candidate "task1": weight 1e-30',
    ),
    "scale": (
        "ace",
        "llama",
        'name = "task1"',
        'name = "task1"\nscale = 0.5',
        '[[candidates]] scale of "task1" has no effect: method "ace" has no scale of each candidate',
    ),
    "density": (
        "regfilter",
        "llama",
        '"merged"\n',
        '"merged"\ndensity = 0.5\n',
        '[merge] density has no effect: the prior is "task_arithmetic"',
    ),
    "regress": ("regmean", "llama", "\n[[cand", "{regress}\n[[cand", "rules[0] '*norm*': use = \"regress\" regresses"),
    "tower": (
        "regmean",
        "clip",
        "\n[res",
        '\n[evaluation]\ntext_tower = "base"\n[res',
        "[evaluation] text_tower has no",
    ),
}
REGRESS = '\n[[rules]]\nparameters = "*norm*"\nuse = "regress"\n'


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> dict[checkpoints.Family, Merge]:
    families: tuple[checkpoints.Family, ...] = ("llama", "llama-tied", "bert", "clip", "vit")
    made = ((family, tmp_path_factory.mktemp(family)) for family in families)
    return {family: make_merge(folder, family, layers=1, candidates=2) for family, folder in made}


def warnings(merge: Merge, method: str, before: str = "", after: str = "") -> list[str]:
    text = merge.manifest.read_text().replace('"regmean++"', f'"{method}"')
    assert before in text
    text = text.replace(before, after, 1) if before else text
    text = text.replace("{regress}", REGRESS)
    return list(make_plan(parse_manifest(text, str(merge.manifest))).warnings)


@pytest.mark.parametrize("name", CASES)
def test_what_has_no_effect_is_named(merges: dict[checkpoints.Family, Merge], name: str) -> None:
    method, family, before, after, expected = CASES[name]
    [line] = [line for line in warnings(merges[family], method, before, after) if expected in line]
    assert "\n" not in line


def test_calibration_sets_that_score_a_tuning_have_an_effect(merges: dict[checkpoints.Family, Merge]) -> None:
    found = warnings(merges["llama"], "task_arithmetic", '"merged"\n', '"merged"\nseed = 1\n')
    assert [line for line in found if "no effect" in line] == [f"[merge] seed has no effect: {SEED}"]
    sampled = warnings(merges["llama"], "task_arithmetic", "batch_rows = 4", "rows = 3")
    assert not any("no effect" in line for line in sampled)
    assert any("calibration of" in line for line in warnings(merges["vit"], "task_arithmetic"))  # has no labels


@pytest.mark.parametrize("num_scales", [1, 2])
def test_a_scale_of_every_candidate_leaves_none_to_that_of_the_merge(
    merges: dict[checkpoints.Family, Merge], num_scales: int
) -> None:
    text = merges["llama"].manifest.read_text().replace('"regmean++"', '"task_arithmetic"\nscale = 0.5')
    for index in range(num_scales):
        text = text.replace(f'name = "task{index}"', f'name = "task{index}"\nscale = 0.2')
    found = list(make_plan(parse_manifest(text, str(merges["llama"].manifest))).warnings)
    named = [line for line in found if "scale" in line]
    assert named == (["[merge] scale has no effect: every candidate has its own"] if num_scales == 2 else [])


@pytest.mark.parametrize("method", ["regmean", "regmean++"])
def test_what_has_an_effect_is_not(merges: dict[checkpoints.Family, Merge], method: str) -> None:
    others = (
        'alpha = 0.5\nseed = 3\nothers.head = "average"\nothers.embeddings = "average"\nothers.vocabulary = "base"\n'
    )
    text = f'"merged"\n{others}'
    found = warnings(merges["llama"], method, '"merged"\n', text.replace("seed = 3\n", ""))
    assert not any("no effect" in line for line in found)
