"""One small merge for all tests of the command line: untouched, half done, and finished; each test gets a copy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from regstream.errors import Interrupted
from regstream.events import Event, StepStarted

Invoke = Callable[..., Result]
#: What `quieten` and this suite set for themselves; a process of its own starts as a person's shell would.
_SET_HERE = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_VERBOSITY", "TRANSFORMERS_VERBOSITY", "FORCE_COLOR", "COLUMNS")


@pytest.fixture
def invoke() -> Invoke:
    """Call the command line in this process: `invoke("plan", path)`."""
    from regstream_cli.app import cli

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    return call


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For processes of their own."""
    return {name: value for name, value in os.environ.items() if name not in _SET_HERE}


@pytest.fixture(scope="session")
def inputs_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from merging import make_merge

    folder = tmp_path_factory.mktemp("inputs")
    evaluation = '[candidates.evaluation]\npath = "task{}.jsonl"\nfield = "input_ids"\nrows = 2\n'
    # Said out loud: what candidates tuned is left out otherwise with a warning.
    others = 'others.embeddings = "base"\nothers.head = "base"\n'
    make_merge(folder, layers=5, hidden=8, candidates=2, candidate=evaluation.format, rules=others)
    return folder


@pytest.fixture(scope="session")
def half_done_once(inputs_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _copy(inputs_once, tmp_path_factory.mktemp("half-done"))

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 2":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        _run(folder, stop)
    return folder


@pytest.fixture(scope="session")
def finished_once(inputs_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _copy(inputs_once, tmp_path_factory.mktemp("finished"))
    _run(folder, lambda event: None)
    return folder


@pytest.fixture
def fresh(inputs_once: Path, tmp_path: Path) -> Path:
    """The manifest of a merge that was not begun."""
    return _copy(inputs_once, tmp_path) / "manifest.toml"


@pytest.fixture
def half_done(half_done_once: Path, tmp_path: Path) -> Path:
    """The manifest of a merge with the stem and two of five blocks done."""
    return _copy(half_done_once, tmp_path) / "manifest.toml"


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """The manifest of a merge that is done."""
    return _copy(finished_once, tmp_path) / "manifest.toml"


def _copy(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder


def _run(folder: Path, listener: Callable[[Event], None]) -> None:
    from regstream.manifest.read_manifest import read_manifest
    from regstream.planning.planning import make_plan
    from regstream.runtime.scheduler import run

    path = folder / "manifest.toml"
    run(make_plan(read_manifest(path)), listener=listener)
