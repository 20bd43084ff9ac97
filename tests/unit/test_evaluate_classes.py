"""Heads made of class names: equal to transformers' own text features, and every way in which they cannot be made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

import checkpoints
from merging import Merge, make_merge
from parametrize import slow
from regstream.errors import InputError, ManifestError
from regstream.evaluation.accuracy import Accuracy
from regstream.evaluation.class_names import read_class_names
from regstream.evaluation.evaluation import evaluate
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.layerwise_forward import open_forwards
from regstream.evaluation.metrics import make_metric
from regstream.events import Event, StepStarted, ignore_event

#: More prompts than go through the tower together, of lengths from few tokens to many.
CLASSES = ["mill", "tower", "sea or lake", "7", "a very long name of a class: the old river at the mill", "お"]
CLASSES += [f"harbour {n}" for n in range(20)]
TEMPLATES = ["a photo of the {}.", "{}", 'a blurry photo of the number: "{}", closed in the evening.']
PATTERN = "classes.toml"


def write_classes(path: Path, classes: object = None, templates: object = None) -> Path:
    lists = {"templates": templates or TEMPLATES, "classes": classes or CLASSES}
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in lists.items()), encoding="utf-8")
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)


def make(folder: Path, family: checkpoints.Family = "clip-full", *, evaluation: str = "", **options: Any) -> Merge:
    """Two candidates, the first with held-out images of the classes in `classes.toml`; `evaluation` is more TOML."""
    merge = make_merge(folder, family, candidates=2, layers=2, **options)
    write_classes(folder / PATTERN)
    labels = torch.randint(len(CLASSES), (11,), generator=torch.Generator().manual_seed(0))
    save_file({"pixel_values": checkpoints.random_images(11, seed=50), "labels": labels}, folder / "held.safetensors")
    table = f'[candidates.evaluation]\npath = "held.safetensors"\nclasses = "{PATTERN}"\n[candidates.calibration]'
    text = merge.manifest.read_text().replace("[candidates.calibration]", table, 1)
    merge.manifest.write_text(text + evaluation)
    return merge


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


def made_head(merge: Merge) -> tuple[Tensor, Tensor]:
    """The weight of the first candidate's head, and the projection before it."""
    plan = merge.plan()
    metric = make_metric(plan, ignore_event)
    assert isinstance(metric, Accuracy)
    assert metric.zero_shot is not None
    evaluation = EvaluationPlan.of(plan, [metric.zero_shot.layers])
    states = merge.manifest.parent / "states"
    forwards = open_forwards(evaluation.passes, states, ignore_event)
    [tower] = forwards.values()
    for step in evaluation.steps:
        tower.run(step, evaluation.projections[step.index])
        tower.drop_before(step.depth + 1)
    head = metric.zero_shot.read_head("task0", tower)
    assert head.projection_PD is not None
    return head.weight_CP, head.projection_PD


@torch.no_grad()
def head_of_transformers(folder: Path) -> Tensor:
    """The same from the whole model, one prompt at a time."""
    model, tokenizer = CLIPModel.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    rows = []
    for name in CLASSES:
        texts = [template.replace("{}", name) for template in TEMPLATES]
        features = [model.get_text_features(**tokenizer(t, return_tensors="pt")).pooler_output[0] for t in texts]
        rows.append(normalize(torch.stack([normalize(feature, dim=0) for feature in features]).mean(0), dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "options", [{}, slow({"sharded": True}), slow({"dtype": torch.bfloat16})], ids=["whole", "sharded", "bf16"]
)
def test_a_head_is_made_of_what_transformers_makes_of_the_prompts(tmp_path: Path, options: dict[str, Any]) -> None:
    merge = make(tmp_path, **options)
    weight_CP, projection_PD = made_head(merge)
    expected = head_of_transformers(merge.folders.base)
    assert weight_CP.dtype == torch.float32
    assert torch.allclose(weight_CP, expected, atol=1e-6)
    assert torch.equal(projection_PD, CLIPModel.from_pretrained(merge.folders.base).visual_projection.weight.float())
    assert not torch.allclose(weight_CP, expected[torch.arange(len(CLASSES)).roll(1)], atol=1e-2)


@pytest.mark.slow
def test_the_end_of_a_text_is_found_with_the_id_that_old_configs_have(tmp_path: Path) -> None:
    merge = make(tmp_path)
    expected = head_of_transformers(merge.folders.base)
    edit(merge.folders.base, lambda config: config["text_config"].update(eos_token_id=2))
    assert torch.allclose(head_of_transformers(merge.folders.base), expected)
    assert torch.allclose(made_head(merge)[0], expected, atol=1e-6)


@torch.no_grad()
def accuracy_of_transformers(base: Path, tower: Path, images: Path) -> float:
    """With a tower's weights in the whole base: the class of an image by the logits of the prompts' mean."""
    model, rows = CLIPModel.from_pretrained(base), load_file(images)
    model.vision_model = checkpoints.load(tower, torch.float32)
    pooled = model.get_image_features(pixel_values=rows["pixel_values"]).pooler_output
    logits = model.logit_scale.exp() * normalize(pooled, dim=-1) @ head_of_transformers(base).T
    return float((logits.argmax(-1) == rows["labels"]).float().mean())


@pytest.mark.slow
def test_every_models_accuracy_is_that_of_transformers(tmp_path: Path) -> None:
    merge = make(tmp_path)
    merge.run()
    # Labels that the base finds, most of them: random ones are hardly ever found by anyone.
    rows = load_file(tmp_path / "held.safetensors")
    model = CLIPModel.from_pretrained(merge.folders.base)
    with torch.no_grad():
        pooled = normalize(model.get_image_features(pixel_values=rows["pixel_values"]).pooler_output, dim=-1)
    rows["labels"][:8] = (pooled @ head_of_transformers(merge.folders.base).T).argmax(-1)[:8]
    save_file(rows, tmp_path / "held.safetensors")
    events: list[Event] = []
    found = {row.model: row.scores["task0"] for row in evaluate(merge.plan(), cross=True, listener=events.append).rows}
    towers = {"base": merge.folders.base, "regmean++": merge.output, "task0": merge.folders.candidates[0]}
    for name, tower in towers.items():
        expected = accuracy_of_transformers(merge.folders.base, tower, tmp_path / "held.safetensors")
        assert found[name] == pytest.approx(expected), name
    assert found["base"] >= 8 / 11
    steps = [event.name for event in events if isinstance(event, StepStarted)]
    parts = ["stem", "block 0", "block 1", "head"]
    assert steps == [*(f"text tower {part}" for part in parts), *parts]
    assert not (merge.output / ".regstream").exists()


def test_without_a_result_the_text_tower_is_not_run(tmp_path: Path) -> None:
    merge, events = make(tmp_path), list[Event]()
    with pytest.raises(InputError, match="merged"):
        evaluate(merge.plan(), listener=events.append)
    assert not any(isinstance(event, StepStarted) for event in events)


@pytest.mark.slow
def test_a_vision_tower_alone_needs_the_whole_named(tmp_path: Path) -> None:
    whole = checkpoints.make_family(tmp_path / "whole", "clip-full", candidates=0, layers=2).base
    merge = make(tmp_path, "clip")
    with pytest.raises(
        InputError, match=r"^base: .*base holds no text_projection.weight.*\[evaluation\] text_tower = "
    ):
        make_metric(merge.plan(), ignore_event)
    merge.manifest.write_text(merge.manifest.read_text() + '[evaluation]\ntext_tower = "whole/base"\n')
    assert torch.allclose(made_head(merge)[0], head_of_transformers(whole), atol=1e-6)
    merge.manifest.write_text(merge.manifest.read_text().replace("whole/base", "org/clip"))
    with pytest.raises(InputError, match=r"text tower: org/clip@main: not in the cache"):
        make_metric(merge.plan(), ignore_event)
    merge.manifest.write_text(merge.manifest.read_text().replace("org/clip", "./nowhere"))
    with pytest.raises(ManifestError, match=r"\[evaluation\] text_tower: expected a folder .*there is no"):
        merge.read()


def test_the_text_tower_of_another_clip_is_refused(tmp_path: Path) -> None:
    checkpoints.make_family(tmp_path / "whole", "clip-full", candidates=0, hidden=64)
    merge = make(tmp_path, "clip", evaluation='[evaluation]\ntext_tower = "whole/base"\n')
    with pytest.raises(
        InputError, match=r"text tower: .*visual_projection.weight \[16, 64\].* and the base 32; expected"
    ):
        make_metric(merge.plan(), ignore_event)


def test_only_a_clip_tells_classes_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="only a CLIP can classify by class names, and the base is vit; set head instead"
    ):
        make_metric(make(tmp_path, "vit").plan(), ignore_event)


def _without_tokenizer(base: Path) -> None:
    for file in base.glob("tokenizer*"):
        file.unlink()


def _with_another_tokenizer(base: Path) -> None:
    _without_tokenizer(base)
    checkpoints.make_tokenizer().save_pretrained(base)


def _with_fewer_tokens(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    tensors[name] = tensors[name][:600].clone()
    save_file(tensors, base / "model.safetensors")
    edit(base, lambda config: config["text_config"].update(vocab_size=600))


def _without_a_block(base: Path) -> None:
    edit(base, lambda config: config["text_config"].update(num_hidden_layers=3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_without_tokenizer, "no tokenizer in it: there is no tokenizer.json, and no other vocabulary"),
        (_with_another_tokenizer, 'tokenizer does not end prompt "a photo of the mill." with id 692'),
        (_with_fewer_tokens, r"gives id 692 in prompt .*vocabulary of 600; does the folder hold this model"),
        (_without_a_block, r"^base: .*num_hidden_layers is 3, and the checkpoint's files hold 2 blocks"),
    ],
)
def test_towers_that_cannot_read_prompts_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    merge = make(tmp_path)
    damage(merge.folders.base)
    with pytest.raises(InputError, match=expected):
        make_metric(merge.plan(), ignore_event)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("classes = [", r"classes.toml: .*at end of document"),
        ('classes = ["a"]', "expected the keys classes and templates, found classes$"),
        ('classes = ["a"]\ntemplates = ["{}"]\nfolder = "b"', "found classes, folder, templates"),
        ('classes = ["a"]\ntemplates = []', "templates: expected a list of texts, none of them empty, found "),
        ('classes = ["a", 3]\ntemplates = ["{}"]', r"classes: expected a list of texts, .*found \['a', 3\]"),
        ('classes = ["a", " "]\ntemplates = ["{}"]', "classes: expected a list of texts, none of them empty"),
        ('classes = ["a"]\ntemplates = ["a photo"]', 'template "a photo" has 0 {}; expected one'),
        ('classes = ["a"]\ntemplates = ["{} or {}"]', 'template "{} or {}" has 2 {}; expected one'),
        ('classes = ["a", "b", "a"]\ntemplates = ["{}"]', r'classes: \[0\] and \[2\] are both "a"; expected each once'),
        ('classes = ["a"]\ntemplates = ["{}", "{}"]', r'templates: \[0\] and \[1\] are both "{}"'),
        (
            'classes = ["a", {folder = "B", name = "b"}]\ntemplates = ["{}"]',
            r"classes\[0\]: expected a table of folder",
        ),
        ('classes = [{folder = "B"}]\ntemplates = ["{}"]', r"classes\[0\]: expected a table of folder and name"),
        (
            'classes = [{folder = "B", name = "b"}, {folder = "B", name = "c"}]\ntemplates = ["{}"]',
            r'classes.folder: \[0\] and \[1\] are both "B"',
        ),
    ],
)
def test_a_file_of_classes_that_cannot_be_used_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / PATTERN).write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_class_names(tmp_path / PATTERN)
    assert len(str(caught.value).splitlines()) == 1


def test_names_follow_the_folders_that_they_are_given_for(tmp_path: Path) -> None:
    entries = [{"folder": "SeaLake", "name": "sea or lake"}, {"folder": "AnnualCrop", "name": "annual crop land"}]
    classes = read_class_names(write_classes(tmp_path / PATTERN, entries, ["a {}.", "{}"]))
    assert classes.of_folders(()).names == ("sea or lake", "annual crop land")
    sorted_by_folder = classes.of_folders(("AnnualCrop", "SeaLake"))
    assert sorted_by_folder.names == ("annual crop land", "sea or lake")
    assert sorted_by_folder.prompts == ["a annual crop land.", "annual crop land", "a sea or lake.", "sea or lake"]
    with pytest.raises(
        InputError, match="2 class folders, but no images in SeaLake, and no class for the images in F,"
    ):
        classes.of_folders(("AnnualCrop", "F", "G", "H", "I"))
    with pytest.raises(InputError, match=r"no images in AnnualCrop$"):
        classes.of_folders(("SeaLake",))


def test_as_many_folders_as_classes_are_expected(tmp_path: Path) -> None:
    classes = read_class_names(write_classes(tmp_path / PATTERN, ["one", "two"]))
    assert classes.of_folders(("1", "2")).names == ("one", "two")
    with pytest.raises(InputError, match="2 classes, where the images are in 3 class folders, 1 to 3"):
        classes.of_folders(("1", "2", "3"))


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    merge = make(tmp_path)
    rows = load_file(tmp_path / "held.safetensors")
    rows["labels"][-1] = len(CLASSES)
    save_file(rows, tmp_path / "held.safetensors")
    with pytest.raises(InputError, match=r'"task0": evaluation: an image has label 26, outside the 26 classes 0 to 25'):
        make_metric(merge.plan(), ignore_event)
    save_file({"weight": torch.zeros(26, 32)}, tmp_path / "head.safetensors")
    merge.manifest.write_text(merge.manifest.read_text().replace(f'classes = "{PATTERN}"', 'head = "head.safetensors"'))
    with pytest.raises(InputError, match="label 26, outside the 26 classes"):
        make_metric(merge.plan(), ignore_event)


def test_a_prompt_that_is_too_long_is_refused(tmp_path: Path) -> None:
    merge = make(tmp_path)
    write_classes(tmp_path / PATTERN, ["river " * 76], ["{}"])
    with pytest.raises(InputError, match=r'"task0": evaluation: prompt "river river.* has more than the 77 tokens'):
        make_metric(merge.plan(), ignore_event)


def test_places_and_contradictions_are_told_with_the_manifest(tmp_path: Path) -> None:
    merge = make(tmp_path)
    text = merge.manifest.read_text()
    save_file({"weight": torch.zeros(2, 32)}, tmp_path / "head.safetensors")
    for old, new, expected in (
        (PATTERN, "nowhere.toml", r"evaluation.classes: expected a .toml file, found \"nowhere.toml\"; there is no"),
        (PATTERN, "mnis", r'task0": evaluation.classes: .* class list, found "mnis"; did you mean "mnist"\?$'),
        (PATTERN, "head.safetensors", r"evaluation.classes: expected a .toml file, found \"head.safetensors\"$"),
        (
            f'"{PATTERN}"',
            f'"{PATTERN}"\nhead = "head.safetensors"',
            'evaluation: expected "head" or "classes", found both',
        ),
    ):
        merge.manifest.write_text(text.replace(old, new))
        with pytest.raises(ManifestError, match=expected):
            merge.read()
