"""What a program imports: read a manifest, plan, merge, evaluate, verify. The command line is a client of it.

`import regstream` has these functions, with the types of what they take and return, the errors and the events.
This module is cheap to import: each function imports the part of the engine that it needs, with torch, when called.

Every function raises the errors of `regstream.errors`, each with the `exit_code` that the command line gives it; a full
disk stays an `OSError`, and exhausted memory a `MemoryError` or torch's. What they return is immutable. A
`listener` is called with the events of `regstream.events`, and may raise `Interrupted` to stop at the next safe point.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regstream.device.garbage_collector import import_modules, importing
from regstream.events import Listener, RunFinished, ignore_event
from regstream.manifest.from_tables import manifest_from_tables
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Manifest
from regstream.manifest.value_types import is_device
from regstream.output.chosen_settings import chosen_settings
from regstream.output.unchanged_result import is_unchanged
from regstream.tuning.journal import identity_to_keep

if TYPE_CHECKING:
    from regstream.checkpoint.base_check import BaseCheck
    from regstream.evaluation.evaluation import Evaluation
    from regstream.evaluation.representation_bias import RepresentationBias
    from regstream.hub.upload import UploadResult
    from regstream.output.verify import Verification
    from regstream.planning.plan import Plan
    from regstream.reporting.report import Report
    from regstream.tuning.tuning import Tuning

_Folder = str | PathLike[str]
_Also = Mapping[str, Path] | None
_Names = Collection[str]
_CONFIGS = ("config.json", "adapter_config.json")  # of a model, and of an adapter, which is no base
_MERGING = ("regstream.runtime.scheduler",)
_EVALUATING = ("regstream.evaluation.evaluation", "regstream.evaluation.representation_bias")


def load_manifest(path: _Folder) -> Manifest:
    """Read and validate a manifest, opening nothing it names; a `ManifestError` has a line for each error."""
    return read_manifest(path)


def make_manifest(tables: Mapping[str, Any]) -> Manifest:
    """Validate tables, `{"merge": {…}, "candidates": [{…}, …]}`, likewise; paths start at the current folder."""
    return manifest_from_tables(tables)


def check_base(base: ModelRef) -> "BaseCheck | None":
    """Check by its config alone whether a base can be merged; None for a folder without one. Refuses as `plan`."""
    if base.folder is not None and not any((base.folder / name).exists() for name in _CONFIGS):
        return None
    with importing():
        from regstream.checkpoint.base_check import check_base_config

    return check_base_config(base)


def plan(
    manifest: Manifest,
    *,
    device: str | None = None,
    restart: bool = False,
    of_result: bool = False,
    for_this_machine: bool = True,
    listener: Listener = ignore_event,
) -> "Plan":
    """Open what a manifest names, check that it belongs together, and project what the merge takes.

    Models of the hub are planned at the commits of the unfinished run or tuning, unless `restart`; with `of_result` at
    those that the finished result was made from. Settings that a run with method "auto" has chosen are kept likewise.
    `device` overrides the manifest's. A plan not `for_this_machine` may be for a device that this machine lacks. Where
    a launcher has started several ranks, all call this, and each gets the plan of its own part.

    Raises:
        ManifestError: a rule matches no parameter, or the device does not exist.
        InputError: a checkpoint or calibration set cannot be used.
        ResumeError: the journal of the unfinished run is damaged.
    """
    # What the work will import, so that the memory of its libraries is measured when it is planned.
    import_modules("regstream.planning.planning", *_MERGING * for_this_machine, *_EVALUATING * of_result)
    from regstream.ranks.group import NO_OTHERS, current_ranks
    from regstream.runtime.plan_together import plan_together

    ranks = current_ranks() if for_this_machine else NO_OTHERS
    return plan_together(
        ranks,
        manifest,
        begun=identity_to_keep(manifest, restart=restart, of_result=of_result) if ranks.is_first else {},
        settings=chosen_settings(manifest) if ranks.is_first and not restart else None,
        device=device,
        for_this_machine=for_this_machine,
        listener=listener,
    )


def check(plan: "Plan") -> None:
    """Refuse what `merge` would refuse before it begins.

    Raises:
        BudgetError: memory or disk do not suffice.
        InputError: the output holds files of others, or cannot be written to.
    """
    from regstream.output.ownership import check_output
    from regstream.tuning.auto import check_choice

    check_output(plan)
    plan.validate()
    check_choice(plan)


def is_finished(manifest: Manifest, *, device: str | None = None, listener: Listener = ignore_event) -> bool:
    """Whether the manifest's result is finished and provably unchanged, with all inputs; then tells the listener so.

    Nothing is planned or fetched. False says only that `plan` and `merge` have to find out, and say what changed:
    models of the hub without a commit, and folders of images, are never proved. `device` must be the name of one.
    """
    if (device is not None and not is_device(device)) or not is_unchanged(manifest):
        return False
    listener(RunFinished(output=str(manifest.merge.output), seconds=0.0, peak_bytes=0, was_finished_before=True))
    return True


def merge(
    plan: "Plan",
    *,
    restart: bool = False,
    full_digest: bool = False,
    ranks_changed: bool = False,
    listener: Listener = ignore_event,
) -> Path:
    """Merge, or resume the run under way; returns the folder of the result. With method "auto" it tunes first.

    `restart` discards what an earlier run left. `full_digest` hashes whole files to find changes, not samples.
    `ranks_changed`: go on with a run that had another number of ranks; makes hidden states from the merged blocks.

    Raises:
        BudgetError: memory or disk do not suffice; nothing was begun.
        InputError: an input is damaged, or the output holds files of others; what was committed stays.
        ResumeError: an input changed since the run began, or another process holds the output.
        SolveError: a regression has no trustworthy solution; what was committed stays.
    """
    from regstream.runtime import scheduler
    from regstream.tuning.auto import choose_settings

    plan = choose_settings(plan, restart=restart, listener=listener)
    scheduler.run(plan, restart=restart, ranks_changed=ranks_changed, full_digest=full_digest, listener=listener)
    return plan.output


def tune(plan: "Plan", *, listener: Listener = ignore_event) -> "Tuning":
    """Find the method's best settings by small merges, or resume; the manifest stays as it is. Raises as `merge`, and
    `ManifestError` where the method has no settings to try, or a candidate no rows that could be held out."""
    from regstream.tuning import tuner, tuning_plan

    return tuner.tune(tuning_plan.TuningPlan.of(plan), listener)


def evaluate(
    plan: "Plan", *, also: _Also = None, only: _Names = (), cross: bool = False, listener: Listener = ignore_event
) -> "Evaluation":
    """Evaluate base, candidates, plain mean and result on held-out rows, or resume; streamed block by block.

    `also` names further folders of models, `only` restricts to some names, `cross` evaluates candidates on all data.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or `only` names no model.
        InputError: rows, heads or checkpoints cannot be used, there is no result yet, or ranks see other inputs.
        BudgetError: memory or disk do not suffice.
        ResumeError: the result belongs to another merge, or a model was altered.
    """
    from regstream.evaluation import evaluation
    from regstream.output.result_identity import check_own_result

    check_own_result(plan, only)
    return evaluation.evaluate(plan, also=also, only=only, cross=cross, listener=listener)


def bias(
    plan: "Plan", *, also: _Also = None, only: _Names = (), listener: Listener = ignore_event
) -> "list[RepresentationBias]":
    """Measure by depth how far the merged models' hidden states are from each candidate's own; raises as `evaluate`."""
    from regstream.evaluation import representation_bias
    from regstream.output.result_identity import check_own_result

    check_own_result(plan, only)
    return representation_bias.representation_bias(plan, also=also, only=only, listener=listener)


def add_results(
    output: _Folder,
    *,
    evaluation: "Evaluation | None" = None,
    bias: "Sequence[RepresentationBias] | None" = None,
    listener: Listener = ignore_event,
) -> None:
    """Put what `evaluate` or `bias` returned into a finished result's record, and scores into its model card as well.

    Replaces what was there. A card that was edited, or a folder that is read-only, stays as it is, with a warning.

    Raises:
        InputError: the folder holds no record of a result, or the record itself is damaged.
        ResumeError: a run is writing to the folder.
    """
    from regstream.output.add_results import add_results

    found = None if evaluation is None else evaluation.record()
    distances = None if bias is None else [distance.record() for distance in bias]
    add_results(Path(output), evaluation=found, bias=distances, listener=listener)


def verify(output: _Folder, *, listener: Listener = ignore_event) -> "Verification":
    """Read a finished result again: every byte against its digest, then every tensor's shape against the config.

    Raises:
        InputError: the folder holds no record of a result, or the record itself is damaged.
    """
    from regstream.output.verify import verify_files

    verification = verify_files(Path(output), listener=listener)
    if verification.problems:
        return verification
    with importing():
        from regstream.output.check_model import check_model  # after the files: it takes seconds to import torch

    return replace(verification, problems=tuple(check_model(Path(output))))


def report(output: _Folder) -> "Report":
    """Read what a finished merge did: its numbers, and a page that shows them; raises as `verify`."""
    from regstream.reporting.read_report import read_report

    return read_report(Path(output))


def push(
    output: _Folder, repo: str, *, revision: str | None = None, private: bool = False, listener: Listener = ignore_event
) -> "UploadResult":
    """Publish a result on the hub, in one commit; an `InputError` if unfinished or altered, or if the hub refuses."""
    from regstream.output import push

    return push.push(Path(output), repo, revision=revision, private=private, listener=listener)
