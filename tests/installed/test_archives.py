"""The wheel holds both packages and nothing else; the sdist holds what builds the wheel and tests it."""

import tarfile
import tomllib
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from regstream import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = {"engine": "regstream", "cli": "regstream_cli"}
INFO = f"regstream-{__version__}.dist-info"
MIB = 1 << 20


@pytest.fixture
def wheel(built: Path) -> Path:
    return built / "dist" / f"regstream-{__version__}-py3-none-any.whl"


def files(folder: Path) -> Iterator[Path]:
    """The files of a folder, without what Python compiled."""
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = {p.relative_to(ROOT / top).as_posix() for top, name in PACKAGES.items() for p in files(ROOT / top / name)}
    about = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == source | about
    assert {"regstream/py.typed", "regstream_cli/py.typed", "regstream/manifest/classes/cifar10.toml"} <= names
    assert wheel.stat().st_size < 2 * MIB


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    about = metadata(wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (about["Name"], about["Version"]) == ("regstream", __version__)
    assert (about["License-Expression"], about["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == (ROOT / "README.md").read_text()
    assert about.get_all("Provides-Extra") == sorted(project["optional-dependencies"])
    assert about.get_all("Classifier") == project["classifiers"]
    required = [line for line in about.get_all("Requires-Dist") or () if "extra ==" not in line]
    assert len(required) == len(project["dependencies"])


def test_the_sdist_builds_the_wheel_and_runs_its_tests(built: Path) -> None:
    sdist = built / "dist" / f"regstream-{__version__}.tar.gz"  # which the wheel was built from
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    factors = ROOT / "tools" / "smollm" / "factors"
    expected = {
        path.relative_to(ROOT).as_posix()
        for top in ("engine", "cli", "manifests", "tests", "tools", ".ci", ".github")
        for path in files(ROOT / top)
        if factors not in path.parents
    }
    top = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore", "PKG-INFO"}
    assert names == expected | top
    assert sdist.stat().st_size < 4 * MIB
