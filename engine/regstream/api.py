"""What a program imports: read a manifest, plan, merge, evaluate, verify. The command line is a client of it.

    from regstream import api

    manifest = api.load_manifest("merge.toml")
    plan = api.plan(manifest)
    print(plan.peak_step.name, plan.projected_bytes(plan.peak_step))
    output = api.merge(plan)
    assert not api.verify(output).problems

Every function raises the errors of `regstream.errors`, each with the exit code that the command line gives it. Where a
function takes a `listener`, it calls it with the events of `regstream.events` while it works; a listener may raise
`Interrupted` to stop at the next safe point.
"""

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path

from regstream.evaluate.evaluation import Evaluation
from regstream.evaluate.evaluation import evaluate as evaluate_models
from regstream.evaluate.representation_bias import RepresentationBias, representation_bias
from regstream.events import Listener, ignore_event
from regstream.hub.upload import UploadResult
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.schema import Manifest
from regstream.output.ownership import check_output
from regstream.output.publish import add_results, published_commits
from regstream.output.push import push as push_folder
from regstream.output.result_identity import check_result
from regstream.output.verify import Verification
from regstream.output.verify import verify as verify_folder
from regstream.plan.plan import Plan
from regstream.plan.planning import make_plan
from regstream.runtime import scheduler
from regstream.storage.journal import Journal


def load_manifest(path: str | PathLike[str]) -> Manifest:
    """Read and validate a manifest; nothing is fetched, and no checkpoint or data file is opened.

    Raises:
        ManifestError: one line for every error in it.
    """
    return read_manifest(path)


def plan(
    manifest: Manifest,
    *,
    device: str | None = None,
    restart: bool = False,
    of_result: bool = False,
    for_this_machine: bool = True,
    listener: Listener = ignore_event,
) -> Plan:
    """Open what a manifest names, check that it belongs together, and project what the merge takes.

    Models of the hub are planned at the commits of the unfinished run, unless `restart`; with `of_result` at those that
    the finished result was made from. `device` overrides the manifest's. A plan not `for_this_machine` may be for a
    device that this machine lacks; it cannot be merged.

    Raises:
        ManifestError: a rule matches no parameter, or the device does not exist.
        InputError: a checkpoint or calibration set cannot be used.
        ResumeError: the journal of the unfinished run is damaged.
    """
    commits = published_commits(manifest.merge.output) if of_result else {}
    if not (of_result or restart):
        commits = Journal.pinned_commits(manifest.workdir)
    return make_plan(manifest, device=device, for_this_machine=for_this_machine, commits=commits, listener=listener)


def check(plan: Plan) -> None:
    """Refuse what `merge` would refuse before it begins.

    Raises:
        BudgetError: memory or disk do not suffice.
        InputError: the output holds files of others, or cannot be written to.
    """
    check_output(plan)
    plan.validate()


def merge(plan: Plan, *, restart: bool = False, full_digest: bool = False, listener: Listener = ignore_event) -> Path:
    """Merge, or resume the run under way; returns the folder of the result.

    `restart` discards what an earlier run left. `full_digest` hashes whole files to find changes, not samples.

    Raises:
        BudgetError: memory or disk do not suffice; nothing was begun.
        InputError: an input is damaged, or the output holds files of others; what was committed stays.
        ResumeError: an input changed since the run began, or another process holds the output.
        SolveError: a regression has no trustworthy solution; what was committed stays.
    """
    scheduler.run(plan, restart=restart, full_digest=full_digest, listener=listener)
    return plan.output


def evaluate(
    plan: Plan,
    *,
    also: Mapping[str, Path] | None = None,
    only: Collection[str] = (),
    cross: bool = False,
    listener: Listener = ignore_event,
) -> Evaluation:
    """Evaluate base, candidates, plain mean and result on held-out rows, or resume; streamed block by block.

    `also` names further folders of models, `only` restricts to some names, `cross` evaluates candidates on all data.

    Raises:
        ManifestError: no candidate has a [candidates.evaluation] table, or `only` names no model.
        InputError: rows, heads or checkpoints cannot be used, or there is no result yet.
        BudgetError: memory or disk do not suffice.
        ResumeError: the result belongs to another merge, or a model was altered.
    """
    _check_result(plan, only)
    return evaluate_models(plan, also=also, only=only, cross=cross, listener=listener)


def add_to_model_card(plan: Plan, evaluation: Evaluation, *, listener: Listener = ignore_event) -> None:
    """Write an evaluation's table into the result's model card."""
    add_results(plan.output, plan, evaluation.markdown(), listener)


def bias(
    plan: Plan, *, also: Mapping[str, Path] | None = None, only: Collection[str] = (), listener: Listener = ignore_event
) -> list[RepresentationBias]:
    """Measure by depth how far the merged models' hidden states are from each candidate's own; raises as `evaluate`."""
    _check_result(plan, only)
    return representation_bias(plan, also=also, only=only, listener=listener)


def verify(output: str | PathLike[str], *, listener: Listener = ignore_event) -> Verification:
    """Read a finished result again: every byte against its digest, every tensor against the config.

    Raises:
        InputError: the folder holds no record of a result, or the record itself is damaged.
    """
    return verify_folder(Path(output), listener=listener)


def push(
    output: str | PathLike[str],
    repo: str,
    *,
    revision: str | None = None,
    private: bool = False,
    listener: Listener = ignore_event,
) -> UploadResult:
    """Publish a result on the hub, in one commit.

    Raises:
        InputError: the result is unfinished or was altered, or the hub refuses it.
    """
    return push_folder(Path(output), repo, revision=revision, private=private, listener=listener)


def _check_result(plan: Plan, only: Collection[str]) -> None:
    if not only or plan.method.name in only:
        check_result(plan)
