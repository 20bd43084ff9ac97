"""The picture tasks: the same pictures each time, every class as often, nothing shared between splits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from parametrize import slow
from pictures import files, manifest
from pictures.canvas import SIZE
from pictures.draw import SPLITS, pictures
from pictures.model import TEMPLATES, Pictures, caption, head, image_processor, new_model, new_tokenizer
from pictures.pretrain import contrast
from pictures.scenes import Scene
from pictures.tasks import EIGHT, TASKS
from pictures.training import Recipe, train

#: Every day the first; in CI all.
SOME = [name if name == next(iter(TASKS)) else slow(name) for name in TASKS]


@pytest.mark.parametrize("name", SOME)
def test_every_class_is_drawn_as_often(name: str) -> None:
    count = 2 * len(TASKS[name].classes)
    drawn = list(pictures(TASKS[name], "training", count))
    assert Counter(label for _, label in drawn) == dict.fromkeys(range(len(TASKS[name].classes)), 2)
    assert {(image.size, image.mode) for image, _ in drawn} == {((SIZE, SIZE), "RGB")}


@pytest.mark.parametrize("name", SOME)
def test_pictures_are_the_same_each_time_and_no_two_splits_share_one(name: str) -> None:
    splits = {split: [files.encoded(image) for image, _ in pictures(TASKS[name], split, 40)] for split in SPLITS}
    again = [files.encoded(image) for image, _ in pictures(TASKS[name], "test", 40)]
    assert again == splits["test"]
    assert len({image for drawn in splits.values() for image in drawn}) == 40 * len(SPLITS)


def test_no_handwritten_digit_is_in_two_splits() -> None:
    from pictures.digits import _written

    found = {split: {image.tobytes() for (_, s), images in _written().items() if s == split for image in images}
             for split in SPLITS}  # fmt: skip
    assert sum(map(len, found.values())) > 1700
    assert not found["pretraining"] & found["training"]
    assert not (found["pretraining"] | found["training"]) & found["test"]


def test_no_two_classes_of_all_tasks_have_one_caption() -> None:
    captions = [caption(name, TEMPLATES[0]) for task in TASKS.values() for name in task.classes]
    assert len(set(captions)) == len(captions)


def test_scenes_turn_hues_and_no_two_ripple_alike() -> None:
    scenes = [Scene.of(index) for index in range(len(TASKS))]
    for scene in scenes:
        assert np.allclose(scene.light @ scene.light.T, np.eye(3))
        assert np.allclose(scene.light @ np.ones(3), np.ones(3))
    waves = np.array([scene.wave for scene in scenes])
    apart = np.minimum(*(np.linalg.norm(waves[:, None] - sign * waves, axis=-1) for sign in (1, -1)))
    assert apart[~np.eye(len(waves), dtype=bool)].min() > 0.1


def test_only_what_candidates_are_tuned_and_tested_on_is_seen_in_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    black = Image.new("RGB", (SIZE, SIZE))
    monkeypatch.setattr("pictures.draw.worn", lambda image, rng: black)
    drawn = {split: next(pictures(TASKS["shapes"], split, 1))[0] for split in SPLITS}
    assert drawn["pretraining"].tobytes() == black.tobytes()
    assert all(np.asarray(drawn[split]).max() > 20 for split in ("training", "test"))


def test_a_table_of_pictures_reads_as_it_was_written(tmp_path: Path) -> None:
    drawn = list(pictures(TASKS["shapes"], "test", 7))
    files.write(tmp_path / "some.parquet", files.table(drawn))
    read = files.read(tmp_path / "some.parquet")
    assert [label for _, label in read] == [label for _, label in drawn]
    assert all(a.tobytes() == b.tobytes() for (a, _), (b, _) in zip(read, drawn, strict=True))


def test_a_head_has_a_row_a_class_and_captions_keep_every_word() -> None:
    torch.manual_seed(0)
    model, tokenizer = new_model(), new_tokenizer()
    weight = head(model, tokenizer, "digits")
    assert weight.shape == (10, model.config.projection_dim)
    assert torch.allclose(weight.norm(dim=-1), model.logit_scale.exp().expand(10))
    longest = max((caption(n, t) for task in TASKS.values() for n in task.classes for t in TEMPLATES), key=len)
    ids = tokenizer(longest).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == longest
    assert tokenizer.unk_token_id not in ids


def test_pictures_reach_the_model_as_training_saw_them(tmp_path: Path) -> None:
    drawn = list(pictures(TASKS["faces"], "test", 3))
    files.write(tmp_path / "some.parquet", files.table(drawn))
    prepared = image_processor()(images=[image for image, _ in drawn], return_tensors="pt")["pixel_values"]
    assert torch.allclose(prepared, Pictures(tmp_path / "some.parquet").pixels(), atol=1e-6)


def test_a_moved_picture_is_a_window_on_it(tmp_path: Path) -> None:
    files.write(tmp_path / "some.parquet", files.table(list(pictures(TASKS["faces"], "test", 3))))
    found = Pictures(tmp_path / "some.parquet")
    for plain, moved in zip(found.pixels(), found.pixels(moved=np.random.default_rng(0)), strict=True):
        inside = moved[:, 3:-3, 3:-3]
        windows = [plain[:, y : y + SIZE - 6, x : x + SIZE - 6] for y in range(7) for x in range(7)]
        assert any(torch.equal(inside, window) for window in windows)
        assert not torch.equal(plain, moved)


def test_the_contrastive_loss_is_least_where_pictures_meet_their_captions() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    right = torch.full((4, 2), -9.0)
    right[torch.arange(4), labels] = 9.0
    assert contrast(right, labels) < contrast(right.flip(1), labels)
    assert float(contrast(torch.zeros(4, 2), labels)) == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_training_that_is_stopped_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pictures.training._SAVED_EVERY", -1.0)
    recipe = Recipe(steps=6, learning_rate=0.1, batch_rows=2, warmup=2)

    def trained(state: Path, stop: int | None) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(3))

        def loss_of(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return (weight * torch.from_numpy(recipe.rows(step, 8, seed=0)).sum()).pow(2).sum()

        train("test", [weight], recipe, loss_of, state)
        return weight.detach()

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop=4)
    assert torch.equal(trained(tmp_path / "stopped", stop=None), trained(tmp_path / "whole", stop=None))


def test_an_epoch_shows_every_row_once() -> None:
    recipe = Recipe(steps=8, learning_rate=0.1, batch_rows=2)
    rows = np.concatenate([recipe.rows(step, 8, seed=1) for step in range(4)])
    assert sorted(rows) == list(range(8))


def test_the_manifests_are_those_that_the_tool_writes() -> None:
    folder = Path(manifest.__file__).parents[2] / "manifests"
    assert (folder / "pictures.toml").read_text() == manifest.text(EIGHT, output="regmean++")
