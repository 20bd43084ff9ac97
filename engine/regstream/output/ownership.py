"""Whose the files of an output are: a run writes and removes what its record lists, and refuses to add to others'."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from regstream.errors import InputError
from regstream.output.damage import check_file
from regstream.output.loadable import loaded_files
from regstream.output.provenance import MEASURED, PROVENANCE, check_name, is_published, read_provenance
from regstream.output.publish import CONFIG, INDEX, result_files
from regstream.plan.plan import Plan
from regstream.storage import durable
from regstream.storage.run_folder import RunFolder


def check_output(plan: Plan) -> None:
    """Refuse an output to which a result cannot be added without mixing it with, or losing, what is not regstream's.

    Raises:
        InputError: it holds files that models are loaded from, or that the result has too, and no record lists them;
            or a file of it is an input; or the folder of a run's state is someone else's; or a record is damaged.
        ResumeError: its state is of another version.
    """
    state_folder(plan).check()
    plan.run_folder.check()
    owned, planned = owned_files(plan), result_files(plan)
    there = sorted(name for name in planned if os.path.lexists(plan.output / name))
    foreign = [name for name in dict.fromkeys((*loaded_files(plan.output), *there)) if name not in owned]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise InputError(
            f"{plan.output}: holds {foreign[0]}{more}, which models are loaded from or a result has too, and no record"
            " of regstream lists as a run's; choose another output, or move them away"
        )
    _refuse_inputs(plan, [own_path(plan.output, name) for name in owned | planned])


def owned_files(plan: Plan) -> frozenset[str]:
    """The files of an output that runs made: as the record of a result lists them, and of a run that is under way."""
    names = set(state_folder(plan).files())
    if is_published(plan.output):
        names |= {PROVENANCE, MEASURED, *read_provenance(plan.output)["files"]}
    for name in names:
        check_name(name, plan.output)
    return frozenset(names)


def state_folder(plan: Plan) -> RunFolder:
    """The folder in the output that says which of its files are a run's."""
    return RunFolder(plan.state, plan.output)


def own_path(folder: Path, name: str) -> Path:
    """Where a file of a result is.

    Raises:
        InputError: a folder on the way there is a link.
    """
    path = folder / name
    if path.parent != folder and path.parent.is_symlink():
        raise InputError(f"{path.parent}: a link, where a folder of the result belongs; move it away")
    return path


def claim(plan: Plan) -> None:
    """Say, before any is written, which files of the output are the run's, and mark its folders."""
    durable.make_folder(plan.workdir)
    state_folder(plan).mark(owned_files(plan) | result_files(plan))
    if plan.workdir != plan.state:
        plan.run_folder.mark()


def clear(plan: Plan) -> list[Path]:
    """Remove what a result or a run left, first what makes it load; what is not a run's stays, and is returned.

    Raises:
        InputError: a file is not what its record says, so that someone may have put it there.
    """
    owned = owned_files(plan)
    _refuse_altered(plan)
    claim(plan)
    names = sorted(owned, key=lambda name: (name == PROVENANCE, name not in (CONFIG, INDEX), name))
    paths = [own_path(plan.output, name) for name in names]
    for path in paths:
        if path.is_symlink() or path.is_dir():
            raise InputError(f"{path}: a link or a folder, and no file that a run made; move it away")
    durable.remove_files(paths)
    for parent in {path.parent for path in paths} - {plan.output}:
        durable.remove_if_empty(parent)
    return [left for folder in _state_folders(plan) for left in folder.clear()]


def release(plan: Plan) -> list[Path]:
    """Remove the state of a finished run, the lock last; what is not a run's stays, and is returned."""
    return [left for folder in _state_folders(plan) for left in folder.remove()]


def has_state(plan: Plan) -> bool:
    """Whether a run's state is there."""
    return any(folder.has_state for folder in _state_folders(plan))


def _state_folders(plan: Plan) -> list[RunFolder]:
    """The run's folder, and, last, the one in the output."""
    elsewhere = [plan.run_folder] if plan.workdir != plan.state and plan.run_folder.exists else []
    return [*elsewhere, *([state] if (state := state_folder(plan)).exists else [])]


def _refuse_altered(plan: Plan) -> None:
    if not is_published(plan.output):
        return
    for name, expected in read_provenance(plan.output)["files"].items():
        path = plan.output / name
        if os.path.lexists(path):
            for problem in check_file(path, expected, whole=False):
                raise InputError(f"{problem}; --restart removes what was recorded and nothing else: move it away")


def _refuse_inputs(plan: Plan, paths: Iterable[Path]) -> None:
    written = dict(_identities(paths))
    inputs = _identities(_inputs(plan)) if written else ()
    for identity, path in inputs:
        if identity in written:
            raise InputError(f"{written[identity]}: is also the input {path}; choose another output")


def _inputs(plan: Plan) -> Iterator[Path]:
    for checkpoint in (plan.base, *(candidate.checkpoint for candidate in plan.candidates)):
        yield from (path for _, path in checkpoint.inputs.values())
    for candidate in plan.manifest.candidates:
        for rows in (candidate.calibration, candidate.evaluation):
            if rows is not None and rows.path is not None:
                yield rows.path
        if candidate.evaluation is not None:
            yield from filter(None, (candidate.evaluation.head, candidate.evaluation.classes))


def _identities(paths: Collection[Path] | Iterable[Path]) -> Iterator[tuple[tuple[int, int], Path]]:
    """What the file system tells files by, links followed; of those that are there."""
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield (status.st_dev, status.st_ino), path
