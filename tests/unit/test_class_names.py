"""The class names and templates that come with the manifests."""

from pathlib import Path

import pytest

import checkpoints
from regstream.evaluation.class_names import read_class_names

FOLDER = Path(__file__).parents[2] / "manifests" / "classes"
#: Classes and templates of each, as published.
PUBLISHED = {
    "sun397": (397, 2), "stanford_cars": (196, 8), "resisc45": (45, 18), "eurosat": (10, 3), "svhn": (10, 1),
    "gtsrb": (43, 3), "mnist": (10, 1), "dtd": (47, 8), "oxford_flowers102": (102, 1), "pcam": (2, 1),
    "fer2013": (7, 6), "oxford_iiit_pet": (37, 1), "stl10": (10, 2), "cifar100": (100, 18), "cifar10": (10, 18),
    "food101": (101, 1), "fashion_mnist": (10, 2), "emnist_letters": (26, 1), "kmnist": (10, 1),
    "rendered_sst2": (2, 1),
}  # fmt: skip
#: Datasets whose labels are not in the order of the names' letters.
BY_ANOTHER_ORDER = {"stanford_cars", "gtsrb", "oxford_flowers102", "fashion_mnist"}


def test_there_is_a_file_for_each_dataset_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.toml" for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_is_complete(name: str) -> None:
    path = FOLDER / f"{name}.toml"
    classes = read_class_names(path)  # no name twice, one place for it in every template
    assert (len(classes.names), len(classes.templates)) == PUBLISHED[name]
    assert all(text == text.strip() for text in (*classes.names, *classes.templates))
    keys = classes.folders or classes.names
    assert (list(keys) == sorted(keys)) == (name not in BY_ANOTHER_ORDER)
    assert path.read_text("utf-8").startswith("# ")
    assert "https://github.com/" in path.read_text("utf-8").split("\n")[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_no_prompt_is_lost_on_the_tokenizer(name: str) -> None:
    tokenizer = checkpoints.make_clip_tokenizer()
    prompts = read_class_names(FOLDER / f"{name}.toml").prompts
    assert len({tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts}) == len(prompts)
