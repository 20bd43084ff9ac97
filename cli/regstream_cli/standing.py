"""How far the merge of a manifest is, read from what it left on disk; nothing is changed, no input is opened."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from regstream.errors import InputError, error_boundary
from regstream.manifest.canonical import meaning
from regstream.manifest.schema import Manifest
from regstream.storage.regular_file import check_regular
from regstream_cli.watch import mean_step_seconds

if TYPE_CHECKING:
    from regstream.storage.identity import Identity

State = Literal["not begun", "unfinished", "finished"]


@dataclass(frozen=True, kw_only=True)
class StepTaken:
    """A step that is done."""

    name: str
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int = 0
    device_projected_bytes: int = 0


_STEP = TypeAdapter(StepTaken)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a merge stands. `total` is None where nothing tells; `changed` says what the manifest asks for now."""

    state: State
    output: str
    total: int | None = None
    steps: tuple[StepTaken, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(step.seconds for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """The most memory that a step took."""
        return max((step.peak_bytes for step in self.steps), default=0)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, at the mean of the blocks that are done."""
        pace = mean_step_seconds([(step.name, step.seconds) for step in self.steps])
        return None if pace is None or self.total is None else pace * (self.total - len(self.steps))


def standing_of(manifest: Manifest) -> RunStatus:
    """Look at a manifest's output and journal.

    Raises:
        InputError: the record beside a finished result is damaged.
        ResumeError: the journal is damaged.
    """
    from regstream.output.provenance import is_published
    from regstream.storage.journal import Journal

    output = str(manifest.merge.output)
    if is_published(manifest.merge.output):
        return _finished(manifest, output)
    announced = Journal.read_header(manifest.workdir)
    if announced is None:
        return RunStatus(state="not begun", output=output)
    steps = tuple(StepTaken(**_only(step.event_fields)) for step in Journal.read_committed(manifest.workdir))
    changed = _changed(announced["identity"], manifest)
    return RunStatus(state="unfinished", output=output, total=len(announced["steps"]), steps=steps, changed=changed)


def _finished(manifest: Manifest, output: str) -> RunStatus:
    from regstream.output.provenance import MEASURED, read_provenance

    record = read_provenance(manifest.merge.output)
    steps = tuple(_read_steps(manifest.merge.output / MEASURED))
    changed = _changed(record["identity"], manifest)
    return RunStatus(state="finished", output=output, total=len(record["steps"]), steps=steps, changed=changed)


def _read_steps(path: Path) -> list[StepTaken]:
    # Whoever copied a result may have left this file behind; the result is whole without it.
    try:
        with error_boundary(f"{path}"):
            content = json.loads(check_regular(path).read_bytes(), parse_constant=_refuse_constant)
            steps = [_STEP.validate_python(step) for step in content["steps"]]
    except InputError:
        return []
    return steps


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _only(measured: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(StepTaken)}
    return {key: value for key, value in measured.items() if key in names}


def _changed(identity: "Identity", manifest: Manifest) -> tuple[str, ...]:
    from regstream.storage.identity import differences

    before = identity["manifest"]
    return tuple(differences(before, meaning(manifest, device=manifest.resources.device or before.get("device"))))
