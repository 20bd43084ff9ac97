"""What a merge took: `regstream.measured.json` beside a result, which runs write and which is not published."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from regstream.errors import InputError
from regstream.output.record import MEASURED
from regstream.storage.json_file import read_json_object


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class WorkTotal(_Entry):
    """What one kind of work took."""

    seconds: float
    num_bytes: int = 0


class MeasuredStep(_Entry):
    """What a step took. Peaks are in bytes: of the process, and of an accelerator (`device_`), 0 without one."""

    name: str
    seconds: float
    peak_bytes: int
    projected_bytes: int
    device_peak_bytes: int = 0
    device_projected_bytes: int = 0
    work: dict[str, WorkTotal] = {}


class Measurements(_Entry):
    """What the steps of a merge took, in order."""

    steps: list[MeasuredStep]

    @property
    def seconds(self) -> float:
        """The time of all steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def peak_step(self) -> MeasuredStep:
        """The step with the highest peak of the process."""
        return max(self.steps, key=lambda step: step.peak_bytes)

    @property
    def device_peak_step(self) -> MeasuredStep | None:
        """The step with the highest peak of the accelerator; None without one."""
        step = max(self.steps, key=lambda step: step.device_peak_bytes)
        return step if step.device_peak_bytes > 0 else None

    @property
    def work(self) -> dict[str, WorkTotal]:
        """The totals by kind of work, the longest first."""
        totals: dict[str, WorkTotal] = {}
        for step in self.steps:
            for kind, found in step.work.items():
                before = totals.get(kind, WorkTotal(seconds=0.0))
                totals[kind] = WorkTotal(
                    seconds=before.seconds + found.seconds, num_bytes=before.num_bytes + found.num_bytes
                )
        return dict(sorted(totals.items(), key=lambda entry: -entry[1].seconds))


def read_measurements(folder: Path) -> Measurements | None:
    """What the merge in a folder took; None for a result that was downloaded, since the file is not published.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / MEASURED
    if not path.exists():
        return None
    try:
        found = Measurements.model_validate(read_json_object(path, "what the steps of a merge took"))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return found if found.steps else None
