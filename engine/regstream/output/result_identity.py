"""Whether a finished result is that of the current manifest and inputs, and its files are unchanged."""

from collections.abc import Collection, Mapping
from typing import Any

from regstream.errors import ResumeError
from regstream.manifest.resources import ComputeDtype
from regstream.output.integrity import check_file
from regstream.output.record import is_for_people, is_published, read_provenance
from regstream.planning.plan import Plan
from regstream.planning.run_identity import identify
from regstream.storage.identity_differences import Identity
from regstream.storage.identity_remedies import changes_with_remedies

#: The parts of an identity that define the merge; the others name the machine and versions, which affect last bits.
_MERGE_KEYS = ("manifest", "hub", "base", "candidates", "prior model", "tokenizers", "calibration")


def check_result(plan: Plan, identity: Identity, *, advice: str, full: bool = False) -> None:
    """Check that the finished result is that of the merge with this identity, on whichever machine it was made.

    `full` reads every byte of its files. `advice` says what to do about the result of another merge.

    Raises:
        ResumeError: it is of another merge, or a file of it is missing or changed.
    """
    record = read_provenance(plan.output)
    asked = plan.manifest.resources.compute_dtype
    recorded, current = (merge_identity(found, asked) for found in (record["identity"], identity))
    if changes := changes_with_remedies(recorded, current):
        what = f"{plan.output}: holds the result of another merge"
        raise ResumeError([f"{what}; {advice}, or undo each change", *changes])
    _check_files(plan, record, full=full)


def check_own_result(plan: Plan, only: Collection[str] = ()) -> None:
    """Check the plan's finished result, if there is one and it is among the models `only`; raises as `check_result`."""
    if is_published(plan.output) and (not only or plan.method.name in only):
        advice = "`regstream run --restart` replaces it; `--only NAME` evaluates without it"
        check_result(plan, identify(plan, full=False), advice=advice)


def merge_identity(identity: Identity, asked: ComputeDtype) -> Identity:
    """The part of an identity that says which merge it is, whatever the machine; the dtypes where one is asked for."""
    manifest = {key: value for key, value in identity["manifest"].items() if key != "device"}
    dtypes = {} if asked == "auto" else {"dtypes": identity.get("dtypes", {})}
    return {key: identity[key] for key in _MERGE_KEYS if key in identity} | {"manifest": manifest} | dtypes


def _check_files(plan: Plan, record: Mapping[str, Any], *, full: bool) -> None:
    advice = "`regstream verify` lists every problem; to replace the result, move altered files away and use --restart"
    for name, expected in record["files"].items():
        if not is_for_people(name):
            for problem in check_file(plan.output / name, expected, whole=full):
                raise ResumeError(f"{problem}; {advice}")
