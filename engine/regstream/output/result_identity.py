"""Whether a finished result is that of the current manifest and inputs, and its files are unchanged."""

from collections.abc import Mapping
from typing import Any

from regstream.errors import ResumeError
from regstream.output.integrity import check_file
from regstream.output.provenance import is_published, read_provenance
from regstream.output.publish import CARD
from regstream.plan.plan import Plan
from regstream.plan.run_identity import identify
from regstream.storage.identity_differences import Identity, differences

#: The parts of an identity that define the merge; the others name the machine and versions, which affect last bits.
_MERGE_KEYS = ("manifest", "hub", "base", "candidates", "calibration")


def check_identity(plan: Plan, identity: Identity, *, full: bool) -> None:
    """Check that the finished result is that of a run with this identity; `full`: by every byte of its files.

    Raises:
        ResumeError: it is of another merge, or a file of it is missing or changed.
    """
    record = read_provenance(plan.output)
    _check_same(plan, record["identity"], identity, "use --restart to replace it, or choose another output to keep it")
    _check_files(plan, record, "move altered files away, then use --restart", full=full)


def check_result(plan: Plan) -> None:
    """Check that a finished result, if there is one, is that of the plan's merge, on whichever machine it was made.

    Raises:
        ResumeError: as `check_identity`.
    """
    if not is_published(plan.output):
        return
    record = read_provenance(plan.output)
    recorded, current = _merge_identity(record["identity"]), _merge_identity(identify(plan, full=False))
    _check_same(plan, recorded, current, "`regstream run` creates this manifest's; `--only NAME` evaluates without it")
    _check_files(plan, record, "`regstream verify` lists every problem", full=False)


def _merge_identity(identity: Identity) -> Identity:
    manifest = {key: value for key, value in identity["manifest"].items() if key != "device"}
    return {key: identity[key] for key in _MERGE_KEYS if key in identity} | {"manifest": manifest}


def _check_same(plan: Plan, recorded: Identity, current: Identity, advice: str) -> None:
    if changed := "; ".join(differences(recorded, current)):
        raise ResumeError(f"{plan.output}: holds the result of another merge: {changed}; {advice}")


def _check_files(plan: Plan, record: Mapping[str, Any], advice: str, *, full: bool) -> None:
    for name, expected in record["files"].items():
        if name != CARD:  # people may edit it
            for problem in check_file(plan.output / name, expected, whole=full):
                raise ResumeError(f"{problem}; {advice}")
