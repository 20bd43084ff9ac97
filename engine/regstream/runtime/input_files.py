"""The input files of a run, checked for changes before each commit."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from regstream.checkpoint.source import LOCAL
from regstream.data.multimodal import MultimodalRows
from regstream.data.pixels import PixelRows
from regstream.data.stored_inputs import InputRows
from regstream.errors import InputError, ResumeError
from regstream.events import Listener, Warned
from regstream.planning.plan import Plan
from regstream.planning.run_identity import identify
from regstream.storage import digests
from regstream.storage.file_status import FileStatus, file_status_if_any
from regstream.storage.identity_differences import Identity, differences
from regstream.storage.identity_remedies import changes_with_remedies


class InputFiles:
    """The files that a merge reads, with their status when this was made. `copied` ones go into the result."""

    def __init__(self, plan: Plan, *, full: bool, copied: Iterable[Path] = ()) -> None:
        self._plan, self._full = plan, full
        self._other_files = (*copied, *_row_files(plan))
        self._signatures = self._read_signatures()  # before the digests, so that a change in between is seen
        self.identity: Identity = identify(plan, full=full)
        self._digests = self._read_digests()

    def check(self, listener: Listener) -> None:
        """Refuse to continue if an input has changed.

        Raises:
            ResumeError: names the input.
        """
        signatures = self._read_signatures()
        changed = [path for path, signature in signatures.items() if self._signatures.get(path) != signature]
        changed += self._signatures.keys() - signatures.keys()
        if not changed:
            return
        try:
            identity, digests_now = identify(self._plan, full=self._full), self._read_digests()
            problems = [
                *changes_with_remedies(self.identity, identity),
                *self._changed_rows(),
                *differences(self._digests, digests_now),
            ]
        except (InputError, OSError) as error:
            raise ResumeError(
                f"an input changed since the run began: {error}; restore it, or --restart starts over"
            ) from error
        if problems:
            raise ResumeError(["inputs changed since the run began; restore them, or --restart starts over", *problems])
        if not self._full:
            written = f"{changed[0]}: written to since the run began; samples of its bytes are unchanged"
            listener(Warned(message=f"{written}, --full-digest compares every byte"))
        self._signatures = signatures

    def _read_signatures(self) -> dict[Path, FileStatus | None]:
        paths = (*_checkpoint_files(self._plan), *(file for path in self._other_files for file in _files_in(path)))
        return {path: file_status_if_any(path) for path in dict.fromkeys(paths)}

    def _read_digests(self) -> Mapping[str, str]:
        # Of a folder of images, the rows that are read count.
        return {str(path): digests.sample_sha256(path) for path in self._other_files if path.is_file()}

    def _changed_rows(self) -> Iterator[str]:
        for candidate in self._plan.candidates:
            rows = candidate.calibration
            if isinstance(rows, PixelRows | InputRows | MultimodalRows) and rows.read_digest() != rows.digest:
                yield f"calibration {candidate.name}"


def _checkpoint_files(plan: Plan) -> Iterator[Path]:
    for checkpoint in plan.checkpoints:
        yield from (path for source, path in checkpoint.inputs.values() if source is LOCAL)


def _row_files(plan: Plan) -> Iterator[Path]:
    for planned, candidate in zip(plan.candidates, plan.manifest.candidates, strict=True):
        rows = candidate.calibration
        if planned.calibration is not None and rows is not None and rows.path is not None:
            yield rows.path
        if isinstance(planned.calibration, MultimodalRows):
            yield from planned.calibration.image_files


def _files_in(path: Path) -> Iterator[Path]:
    yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent, name) for name in names)
