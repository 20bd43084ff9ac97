"""Which files of an output folder belong to runs: only those that a record lists are overwritten or removed."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from regstream.errors import InputError
from regstream.output.integrity import check_file
from regstream.output.model_files import model_files
from regstream.output.publish import CONFIG, INDEX, result_files
from regstream.output.record import MEASURED, PROVENANCE, check_file_name, is_published, read_provenance
from regstream.planning.plan import Plan
from regstream.storage import durable
from regstream.storage.run_folder import RunFolder
from regstream.storage.tuning_folder import remove_tuning


def check_output(plan: Plan) -> None:
    """Check that a result can be written to the output folder without replacing or mixing with other files.

    Raises:
        InputError: it holds files that libraries load or the result would replace, and no record lists them; or one
            of its files is an input; or the state folder is not a run's; or a record is damaged.
        ResumeError: its state is of another version.
    """
    state_folder(plan).check()
    plan.run_folder.check()
    owned, planned = owned_files(plan), result_files(plan)
    existing = sorted(name for name in planned if os.path.lexists(plan.output / name))
    foreign = [name for name in dict.fromkeys((*model_files(plan.output), *existing)) if name not in owned]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise InputError(
            f"{plan.output}: contains {foreign[0]}{more}, which regstream did not write and which would be overwritten"
            " or loaded with the result; choose another output or move all such files away"
        )
    _refuse_inputs(plan, [result_path(plan.output, name) for name in owned | planned])


def owned_files(plan: Plan) -> frozenset[str]:
    """The files in the output that runs wrote, by the record of the result and that of an unfinished run."""
    names = set(state_folder(plan).files())
    if is_published(plan.output):
        names |= {PROVENANCE, MEASURED, *read_provenance(plan.output)["files"]}
    for name in names:
        check_file_name(name, plan.output)
    return frozenset(names)


def state_folder(plan: Plan) -> RunFolder:
    """The folder in the output whose marker lists the files that runs write there."""
    return RunFolder(plan.state, plan.output)


def result_path(folder: Path, name: str) -> Path:
    """Where a file of a result is.

    Raises:
        InputError: a folder on the way there is a link.
    """
    path = folder / name
    if path.parent != folder and path.parent.is_symlink():
        raise InputError(f"{path.parent}: a link, where a folder of the result belongs; move it away")
    return path


def claim_output(plan: Plan) -> None:
    """Record which files of the output belong to the run, before it writes any, and mark the run's folders."""
    durable.make_folder(plan.workdir)
    state_folder(plan).mark(owned_files(plan) | result_files(plan))
    if plan.workdir != plan.state:
        plan.run_folder.mark()


def remove_result(plan: Plan) -> list[Path]:
    """Remove a result and the state of a run, config and index first. Returns files in state folders that are others'.

    Raises:
        InputError: a file differs from its record, so that someone may have replaced it.
    """
    owned = owned_files(plan)
    _refuse_changed(plan)
    claim_output(plan)
    names = sorted(owned, key=lambda name: (name == PROVENANCE, name not in (CONFIG, INDEX), name))
    paths = [result_path(plan.output, name) for name in names]
    for path in paths:
        if path.is_symlink() or path.is_dir():
            raise InputError(f"{path}: a link or a folder, not a file that a run wrote; move it away")
    durable.remove_files(paths)
    for parent in {path.parent for path in paths} - {plan.output}:
        durable.remove_if_empty(parent)
    return [left for folder in _state_folders(plan) for left in folder.clear()]


def remove_state(plan: Plan) -> list[Path]:
    """Remove the state of a finished run, and of a tuning, the lock last. Returns files in its folders of others."""
    tuning = remove_tuning(plan.workdir)
    return tuning + [left for folder in _state_folders(plan) for left in folder.remove()]


def has_state(plan: Plan) -> bool:
    """Whether state of a run exists."""
    return any(folder.has_state for folder in _state_folders(plan))


def _state_folders(plan: Plan) -> list[RunFolder]:
    """The folders with state of a run that exist; the one in the output, which holds the lock, is the last."""
    folders = [plan.run_folder] if plan.workdir != plan.state else []
    return [folder for folder in (*folders, state_folder(plan)) if folder.exists]


def _refuse_changed(plan: Plan) -> None:
    if not is_published(plan.output):
        return
    for name, expected in read_provenance(plan.output)["files"].items():
        path = plan.output / name
        if os.path.lexists(path):
            for problem in check_file(path, expected, whole=False):
                raise InputError(f"{problem}; --restart removes only unchanged files of a run; move this file away")


def _refuse_inputs(plan: Plan, paths: Iterable[Path]) -> None:
    outputs = dict(_inodes(paths))
    for inode, path in _inodes(_inputs(plan)) if outputs else ():
        if inode in outputs:
            raise InputError(f"{outputs[inode]}: is also the input {path}; choose another output")


def _inputs(plan: Plan) -> Iterator[Path]:
    for checkpoint in plan.checkpoints:
        yield from (path for _, path in checkpoint.inputs.values())
    for candidate in plan.manifest.candidates:
        for rows in (candidate.calibration, candidate.evaluation):
            if rows is not None and rows.path is not None:
                yield rows.path
        if candidate.evaluation is not None:
            yield from filter(None, (candidate.evaluation.head, candidate.evaluation.classes))


def _inodes(paths: Iterable[Path]) -> Iterator[tuple[tuple[int, int], Path]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield (status.st_dev, status.st_ino), path
