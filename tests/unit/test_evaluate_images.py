"""Accuracy, streamed: equal to the whole model's own, by heads on projected features and on plain ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import checkpoints
from merging import Merge, make_merge
from parametrize import slow
from regstream.errors import InputError, ManifestError
from regstream.evaluation.evaluation import Evaluation, evaluate

CLASSES = 5


def make(folder: Path, family: checkpoints.Family, *, features: int, bias: bool = False) -> Merge:
    """Three candidates; two have held-out images with labels, and a head of so many features."""
    table = '[candidates.evaluation]\npath = "held-out-{0}.safetensors"\nhead = "head-{0}.safetensors"\n'
    merge = make_merge(folder, family, candidates=3, layers=2)
    text = merge.manifest.read_text()
    for index in range(2):
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(0, CLASSES, (11,), generator=generator)
        pixels = checkpoints.random_images(11, seed=50 + index)
        save_file({"pixel_values": pixels, "labels": labels}, folder / f"held-out-{index}.safetensors")
        head = {"weight": torch.randn(CLASSES, features, generator=generator)}
        head |= {"bias": torch.randn(CLASSES, generator=generator)} if bias else {}
        save_file(head, folder / f"head-{index}.safetensors")
        start = text.index(f'name = "task{index}"')
        stop = text.find("[[candidates]]", start)
        text = text[:stop] + table.format(index) + text[stop:]
    merge.manifest.write_text(text)
    return merge


@torch.no_grad()
def whole_accuracy(model: Any, folder: Path, index: int, projection: Tensor | None) -> float:
    """Of the whole model in one piece."""
    rows, head = load_file(folder / f"held-out-{index}.safetensors"), load_file(folder / f"head-{index}.safetensors")
    output = model(pixel_values=rows["pixel_values"])
    pooled = output.last_hidden_state[:, 0] if model.config.model_type == "vit" else output.pooler_output
    if projection is not None:
        pooled = pooled @ projection.T
        pooled = pooled / pooled.norm(dim=-1, keepdim=True)
    scores = pooled @ head["weight"].T + head.get("bias", torch.zeros(CLASSES))
    return float((scores.argmax(-1) == rows["labels"]).float().mean())


def scores(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {row.model: dict(row.scores) for row in evaluation.rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "features", "bias"),
    [slow("clip", 32, False), ("clip-full", 16, False), slow("clip-full", 32, True), slow("vit", 32, True)],
)
def test_every_models_accuracy_is_the_whole_models(
    tmp_path: Path, family: checkpoints.Family, features: int, *, bias: bool
) -> None:
    merge = make(tmp_path, family, features=features, bias=bias)
    merge.run()
    found = evaluate(merge.plan())
    assert (found.metric, found.higher_is_better, found.datasets) == ("accuracy", True, ("task0", "task1"))
    projection = None
    if family == "clip-full" and features == 16:
        projection = load_file(merge.folders.base / "model.safetensors")["visual_projection.weight"]
    models = {"base": merge.folders.base, "task0": merge.folders.candidates[0], "regmean++": merge.output}
    for name, folder in models.items():
        whole = checkpoints.load(folder, torch.float32)
        judged_on = {"task0": [0]}.get(name, [0, 1])
        expected = {f"task{index}": whole_accuracy(whole, tmp_path, index, projection) for index in judged_on}
        assert scores(found)[name] == pytest.approx(expected), name


@pytest.mark.slow
def test_heads_and_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    merge = make(tmp_path, "clip", features=7)
    merge.run()
    with pytest.raises(InputError, match=r'"task0": evaluation: .*weight has 7 features, the model\'s are 32'):
        evaluate(merge.plan())
    save_file({"classes": torch.zeros(1)}, tmp_path / "head-0.safetensors")
    with pytest.raises(InputError, match=r"expected a tensor weight \(classes, features\), found classes"):
        evaluate(merge.plan())
    save_file({"pixel_values": checkpoints.random_images(3, seed=0)}, tmp_path / "held-out-0.safetensors")
    with pytest.raises(InputError, match="expected a tensor labels, found pixel_values"):
        evaluate(merge.plan())
    merge.manifest.write_text(merge.manifest.read_text().replace('head = "head-0.safetensors"\n', ""))
    labelled = {"pixel_values": checkpoints.random_images(3, seed=0), "labels": torch.zeros(3, dtype=torch.long)}
    save_file(labelled, tmp_path / "held-out-0.safetensors")
    with pytest.raises(ManifestError, match=r'"task0": evaluation: head is missing'):
        evaluate(merge.plan())


def test_a_head_that_is_not_there_is_told_with_the_manifest(tmp_path: Path) -> None:
    merge = make(tmp_path, "clip", features=32)
    (tmp_path / "head-1.safetensors").unlink()
    with pytest.raises(ManifestError, match=r"head: expected a .safetensors file, .*there is no"):
        merge.read()


def test_what_is_no_language_nor_vision_model_is_not_judged(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "bert", layers=1)
    text = merge.manifest.read_text().replace(
        "[candidates.calibration]", '[candidates.evaluation]\npath = "task0.jsonl"\n[candidates.calibration]', 1
    )
    merge.manifest.write_text(text)
    with pytest.raises(
        ManifestError, match="BertModel: only models that predict tokens or encode images can be evaluated"
    ):
        evaluate(merge.plan())
