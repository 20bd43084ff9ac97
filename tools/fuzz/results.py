"""Merges that were run before a case begins: finished ones, and one that was interrupted."""

import shutil
from pathlib import Path

from regstream.errors import Interrupted
from regstream.events import Event, StepStarted, ignore_event
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run


def make_results(inputs: Path) -> None:
    """Write `finished` and `half` from the language model's merge, `judged` from the vision model's."""
    for start, name in (("text", "finished"), ("vision", "judged")):
        _run(shutil.copytree(inputs / start, inputs / name))
    folder = shutil.copytree(inputs / "text", inputs / "half")

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 1":
            raise Interrupted("here")

    try:
        _run(folder, stop)
    except Interrupted:
        return
    raise AssertionError("the merge was not interrupted")


def _run(folder: Path, listener: object = ignore_event) -> None:
    path = folder / "manifest.toml"
    run(make_plan(read_manifest(path)), listener=listener)  # type: ignore[arg-type]
