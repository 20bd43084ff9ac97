"""The progress of a manifest's merge and tuning, read from the files that they left. Opens no input, writes nothing."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from regstream.errors import InputError, error_boundary
from regstream.manifest.canonical import canonical_config
from regstream.manifest.schema import Manifest
from regstream.methods import AUTO
from regstream.output.chosen_settings import with_choice
from regstream.output.record import MEASURED, is_published, read_provenance
from regstream.storage.identity_differences import Identity, differences
from regstream.storage.journal import Journal
from regstream.storage.json_file import read_json_object
from regstream.storage.run_folder import JOURNAL
from regstream.tuning.tuning_status import TuningStatus, read_tuning_status
from regstream_cli.progress_state import mean_block_seconds


@dataclass(frozen=True, kw_only=True)
class StepMeasurement:
    """The time and peak memory of a committed step, and the memory that the plan projected."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    name: str
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int = 0
    device_projected_bytes: int = 0


_STEP = TypeAdapter(StepMeasurement)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The progress of a merge.

    `total` is the number of steps, None before a run starts. `changed` lists the settings that differ between the
    manifest and the run. A finished result may lack its measurements; `steps` is then empty. `tuning` is one that is
    under way, or was interrupted. Of an unfinished merge, `next_step` is the step after those, None where only
    publishing remains, and `since` is when the last one was committed, or the run began, in ISO 8601.
    """

    state: Literal["not begun", "unfinished", "finished"]
    output: str
    total: int | None = None
    steps: tuple[StepMeasurement, ...] = ()
    changed: tuple[str, ...] = ()
    tuning: TuningStatus | None = None
    next_step: str | None = None
    since: str | None = None

    @property
    def seconds(self) -> float:
        """The time of all committed steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """The highest peak of host memory among the committed steps."""
        return max((step.peak_bytes for step in self.steps), default=0)

    @property
    def projected_bytes(self) -> int:
        """The highest projected peak of host memory among the committed steps."""
        return max((step.projected_bytes for step in self.steps), default=0)

    @property
    def device_peak_bytes(self) -> int:
        """The highest peak of an accelerator's memory among the committed steps; 0 without one."""
        return max((step.device_peak_bytes for step in self.steps), default=0)

    @property
    def device_projected_bytes(self) -> int:
        """The highest projected peak of an accelerator's memory among the committed steps; 0 without one."""
        return max((step.device_projected_bytes for step in self.steps), default=0)

    @property
    def seconds_left(self) -> float | None:
        """The estimated time of the remaining steps, at the mean time of the committed blocks."""
        step_seconds = mean_block_seconds([(step.name, step.seconds) for step in self.steps])
        return None if step_seconds is None or self.total is None else step_seconds * (self.total - len(self.steps))


def read_run_status(manifest: Manifest) -> RunStatus:
    """Read the status of a manifest's merge from its output and its journal.

    Raises:
        InputError: the record in a finished result is damaged.
        ResumeError: the journal is damaged.
    """
    status, tuning = _merge_status(manifest), read_tuning_status(manifest.workdir)
    if tuning is not None and tuning.num_finished == tuning.num_rounds and status.state != "not begun":
        # That of a method "auto" stays until the merge that it was for is finished.
        tuning = None if manifest.merge.method == AUTO else tuning
    return replace(status, tuning=tuning)


def _merge_status(manifest: Manifest) -> RunStatus:
    folder = manifest.merge.output
    if is_published(folder):
        return _finished_status(manifest)
    status = _unfinished_status(manifest)
    # A run publishes its result before it removes its journal: one that ended during the reading is finished.
    return _finished_status(manifest) if is_published(folder) else status


def _unfinished_status(manifest: Manifest) -> RunStatus:
    output, journal = str(manifest.merge.output), manifest.workdir / JOURNAL
    announced = Journal.read_header(manifest.workdir)
    if announced is None:
        return RunStatus(state="not begun", output=output)
    steps = tuple(_STEP.validate_python(step.event_fields) for step in Journal.read_committed(manifest.workdir))
    names = announced["steps"]
    try:
        since = datetime.fromtimestamp(journal.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except FileNotFoundError:  # the run ends at this moment
        since = None
    return RunStatus(
        state="unfinished",
        output=output,
        total=len(names),
        steps=steps,
        changed=_changed_settings(announced["identity"], manifest),
        next_step=str(names[len(steps)]) if len(steps) < len(names) else None,
        since=since,
    )


def _finished_status(manifest: Manifest) -> RunStatus:
    output = str(manifest.merge.output)
    record = read_provenance(manifest.merge.output)
    steps = _read_measurements(manifest.merge.output / MEASURED)
    changed = _changed_settings(record["identity"], manifest)
    return RunStatus(state="finished", output=output, total=len(record["steps"]), steps=steps, changed=changed)


def _read_measurements(path: Path) -> tuple[StepMeasurement, ...]:
    # The result is complete without this file: a copy of it may lack it.
    try:
        content = read_json_object(path, "the measurements of a result")
        with error_boundary(f"{path}"):
            return tuple(_STEP.validate_python(step) for step in content["steps"])
    except InputError:
        return ()


def _changed_settings(identity: Identity, manifest: Manifest) -> tuple[str, ...]:
    before, manifest = identity["manifest"], with_choice(manifest)
    now = canonical_config(manifest, device=manifest.resources.device or before.get("device"))
    return tuple(differences(before, now))
