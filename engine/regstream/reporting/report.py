"""The report of a merge: its numbers, and what people look at."""

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regstream.events import Listener, ignore_event
from regstream.output.merge_summary import MergeSummary, root_mean_square
from regstream.output.record import PICTURES, REPORT
from regstream.output.record_schema import ResultRecord
from regstream.reporting.canvas import Picture
from regstream.reporting.change_picture import change_picture
from regstream.reporting.hidden_state_picture import hidden_state_picture
from regstream.reporting.measurements import Measurements
from regstream.reporting.memory_picture import memory_picture
from regstream.reporting.residual_picture import residual_picture
from regstream.reporting.score_picture import score_picture
from regstream.reporting.scores import Scores

#: In a notebook, in pixels.
_FRAME_HEIGHT = 720


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a merge did. Parts that were not measured are None, or empty."""

    name: str  # of the result's folder
    record: ResultRecord
    summary: MergeSummary  # what became of the candidates' changes, and where the result fits them worst
    scores: Scores | None  # on held-out rows, by `evaluate`
    measurements: Measurements | None  # time and memory

    @property
    def average_residual(self) -> tuple[float, float] | None:
        """The root mean square of all relative residuals: of the merged weights, and of the mean."""
        groups = self.summary.residuals_by_group
        if not groups:
            return None
        return root_mean_square([group.merged for group in groups]), root_mean_square([group.mean for group in groups])

    @cached_property
    def pictures(self) -> dict[str, Picture]:
        """The pictures of what was measured, by name."""
        return {picture.name: picture for picture in self._pictures()}

    def to_html(self) -> str:
        """One page that needs nothing beside itself: no script, no network."""
        from regstream.reporting.page import render_page

        return render_page(self)

    def to_files(self) -> dict[str, bytes]:
        """The page and the pictures as PNG, by their names in the folder of the result."""
        files = {f"{PICTURES}/{name}.png": picture.png() for name, picture in self.pictures.items()}
        return {REPORT: self.to_html().encode(), **files}

    def write(self, folder: Path | str, *, listener: Listener = ignore_event) -> Path:
        """Write page and pictures into the folder of the result, and into its record; returns the path of the page.

        A model card that was edited does not get the pictures, with a warning.

        Raises:
            InputError: it is no folder of a result, is read-only, or has files of others with these names.
            ResumeError: a run is writing to the folder.
        """
        from regstream.output.report_files import write_report_files

        write_report_files(Path(folder), self.to_files(), listener)
        return Path(folder) / REPORT

    def write_page(self, file: Path | str) -> Path:
        """Write the page alone, wherever it is; returns its path.

        Raises:
            InputError: the file cannot be written, or is none that regstream has written.
        """
        from regstream.reporting.page_file import write_page_file

        write_page_file(Path(file), self.to_html().encode())
        return Path(file)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON: what the page sums up from the record and the measurements."""
        measured = self.measurements
        return {
            "name": self.name,
            "method": self.record.method,
            "base": self.record.base,
            "candidates": list(self.record.candidates),
            "lost_changes": [asdict(lost) | {"message": lost.describe()} for lost in self.summary.lost],
            "warnings": list(self.record.warnings),
            "changes": [asdict(total) for total in self.summary.changes],
            "changes_by_step": [asdict(total) for total in self.summary.changes_by_step],
            "residuals": [asdict(total) for total in self.summary.residuals],
            "residuals_by_group": [asdict(group) for group in self.summary.residuals_by_group],
            "scores": None if self.scores is None else asdict(self.scores),
            "hidden_states": [bias.model_dump() for bias in self.record.bias or []],
            "solves": [{"step": s.name, **solve.model_dump()} for s in self.record.steps for solve in s.solves],
            "seconds": None if measured is None else measured.seconds,
            "work": {} if measured is None else {kind: w.model_dump() for kind, w in measured.work.items()},
            "steps": [] if measured is None else [step.model_dump() for step in measured.steps],
        }

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither its styles nor a notebook's reach the other."""
        page = html.escape(self.to_html(), quote=True)
        title = html.escape(f"Report of {self.name}", quote=True)
        style = f"width: 100%; height: {_FRAME_HEIGHT}px; border: 1px solid #8888; border-radius: 6px"
        return f'<iframe sandbox="" title="{title}" style="{style}" srcdoc="{page}"></iframe>'

    def _pictures(self) -> Iterator[Picture]:
        found = (
            score_picture(self.scores),
            residual_picture(self.record.steps, self.summary),
            change_picture(self.summary),
            hidden_state_picture(self.record.bias, self.record.method),
            memory_picture(self.measurements),
        )
        return (picture for picture in found if picture is not None)
