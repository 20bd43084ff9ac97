"""The class names and templates that come with the package, and their names in a manifest."""

from pathlib import Path

import pytest

import checkpoints
from regstream.evaluation.class_names import read_class_names
from regstream.manifest.class_lists import class_list_names, class_list_path

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


def test_there_is_a_list_for_each_dataset_and_no_other() -> None:
    assert set(class_list_names()) == PUBLISHED.keys()


def test_a_name_is_a_list_and_what_has_a_suffix_or_a_folder_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "cifar10").write_text("no list")
    assert class_list_path("cifar10", tmp_path).read_text("utf-8").startswith("# CIFAR10")
    for text in ("cifar10.toml", "./cifar10", "own/cifar10"):
        assert class_list_path(text, tmp_path) == tmp_path / text


@pytest.mark.parametrize(
    ("name", "advice"),
    [("Cifar-10", 'did you mean "cifar10"'), ("birds", "the names are cifar10, cifar100, dtd, .*, svhn$")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f'expected a .toml file or the name of a class list, found "{name}"; {advice}'
    ):
        class_list_path(name, tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_list_is_complete(name: str) -> None:
    path = class_list_path(name, Path())
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
    prompts = read_class_names(class_list_path(name, Path())).prompts
    assert len({tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts}) == len(prompts)
