"""The inputs of a run, watched: what is replaced meanwhile is noticed before anything made of it is committed."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from regstream.checkpoint.source import LOCAL
from regstream.data.pixels import PixelRows
from regstream.errors import InputError, ResumeError
from regstream.events import Listener, Warned
from regstream.plan.identity import identify
from regstream.plan.plan import Plan
from regstream.storage import digests
from regstream.storage.identity import Identity, differences

#: What of a file changes when someone writes to it or puts another in its place.
_Signature = tuple[int, ...] | None


class Inputs:
    """What a merge reads, as it was when this was made. `copied` are files that go into the result as they are."""

    def __init__(self, plan: Plan, *, full: bool, copied: Iterable[Path] = ()) -> None:
        self._plan, self._full = plan, full
        self._beside = (*copied, *_row_files(plan))
        self._signatures = self._look()  # before digests are taken: what changes in between is seen as changed
        self.identity: Identity = identify(plan, full=full)
        self._digests = self._read_beside()

    def check(self, listener: Listener) -> None:
        """Refuse to go on where an input is not what it was.

        Raises:
            ResumeError: names it.
        """
        signatures = self._look()
        changed = [path for path, signature in signatures.items() if self._signatures.get(path) != signature]
        changed += self._signatures.keys() - signatures.keys()
        if not changed:
            return
        try:
            now, beside = identify(self._plan, full=self._full), self._read_beside()
            found = [*differences(self.identity, now), *self._of_images(), *differences(self._digests, beside)]
        except (InputError, OSError) as error:
            raise ResumeError(f"an input changed since the run began: {error}; put it back, or --restart") from error
        if found:
            told = "; ".join(found)
            raise ResumeError(f"inputs changed since the run began: {told}; put them back, or --restart starts anew")
        if not self._full:
            told = f"{changed[0]}: written to since the run began; its samples are as they were"
            listener(Warned(message=f"{told}, and --full-digest compares every byte"))
        self._signatures = signatures

    def _look(self) -> dict[Path, _Signature]:
        paths = (*_checkpoint_files(self._plan), *(below for path in self._beside for below in _below(path)))
        return {path: _signature(path) for path in dict.fromkeys(paths)}

    def _read_beside(self) -> Mapping[str, str]:
        # A folder's images are told by what is read of them.
        return {str(path): digests.sample_sha256(path) for path in self._beside if path.is_file()}

    def _of_images(self) -> Iterator[str]:
        for candidate in self._plan.candidates:
            rows = candidate.calibration
            if isinstance(rows, PixelRows) and rows.read_digest() != rows.digest:
                yield f"calibration {candidate.name}"


def _checkpoint_files(plan: Plan) -> Iterator[Path]:
    for checkpoint in (plan.base, *(candidate.checkpoint for candidate in plan.candidates)):
        yield from (path for source, path in checkpoint.inputs.values() if source is LOCAL)


def _row_files(plan: Plan) -> Iterator[Path]:
    for planned, candidate in zip(plan.candidates, plan.manifest.candidates, strict=True):
        rows = candidate.calibration
        if planned.calibration is not None and rows is not None and rows.path is not None:
            yield rows.path


def _below(path: Path) -> Iterator[Path]:
    yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent, name) for name in names)


def _signature(path: Path) -> _Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
