"""The lowest versions that pyproject.toml admits, as exact pins that pip takes as constraints, one a line."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)")


def main() -> None:
    """Print a pin for every requirement. Anything but one lower bound for each name is an error."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    lists = project["dependencies"], *project["optional-dependencies"].values()
    pins: dict[str, str] = {}
    for requirement in sorted({requirement for one in lists for requirement in one}):
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} is not a lower bound such as name>=1.2")
        name, version = bound.groups()
        if pins.setdefault(name, version) != version:
            raise SystemExit(f"pyproject.toml: {name} has two lower bounds, {pins[name]} and {version}")
    for name, version in pins.items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
