"""Files of class names and prompt templates: the user's own, and those of published datasets, known by name."""

import re
from difflib import get_close_matches
from pathlib import Path

from regstream.manifest.references import absolute_path

_FOLDER = Path(__file__).with_name("classes")
_NAME = re.compile(r"[\w-]+")


def class_list_names() -> tuple[str, ...]:
    """The names of the lists that come with the package: "cifar10", "cifar100", …, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def class_list_path(text: str, folder: Path) -> Path:
    """The absolute path of a list by its name, or of a file relative to `folder`: text with a suffix or a folder.

    Raises:
        ValueError: there is no list of that name, or the text is not a path.
    """
    if _NAME.fullmatch(text) is None:
        return absolute_path(text, folder)
    names = class_list_names()
    if text in names:
        return _FOLDER / f"{text}.toml"
    guess = get_close_matches(text.lower().replace("-", "_"), names, n=1)
    advice = f'did you mean "{guess[0]}"?' if guess else f"the names are {', '.join(names)}"
    raise ValueError(f'expected a .toml file or the name of a class list, found "{text:.80}"; {advice}')
