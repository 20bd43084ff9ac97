"""Whether a finished result is that of a manifest as it is now, and is still what was made."""

from collections.abc import Mapping
from typing import Any

from regstream.errors import ResumeError
from regstream.output.damage import altered
from regstream.output.provenance import is_published, read_provenance
from regstream.output.publish import CARD
from regstream.plan.identity import identify
from regstream.plan.plan import Plan
from regstream.storage.identity import Identity, differences

#: What says which merge a result is of; the rest says which machine and versions made its last bits.
_MEANING = ("manifest", "hub", "base", "candidates", "calibration")


def refuse_other(plan: Plan, identity: Identity, *, full: bool) -> None:
    """Refuse a result that is not, or not any more, that of a run with this identity.

    Raises:
        ResumeError: it is of another merge, or a file of it is missing or altered.
    """
    record = read_provenance(plan.output)
    _refuse_changed(plan, record["identity"], identity, "--restart replaces it, another output keeps it")
    _refuse_altered(plan, record, "--restart makes it anew, once altered files are moved away", full=full)


def check_result(plan: Plan) -> None:
    """Refuse to judge what is not the result of a plan's merge; a merge without a result is another matter.

    Raises:
        ResumeError: as `refuse_other` does; on which machine it was made does not count.
    """
    if not is_published(plan.output):
        return
    record = read_provenance(plan.output)
    recorded, now = _meaning(record["identity"]), _meaning(identify(plan, full=False))
    _refuse_changed(plan, recorded, now, "`regstream run` makes this one's, --only judges other models alone")
    _refuse_altered(plan, record, "`regstream verify` tells more", full=False)


def _meaning(identity: Identity) -> Identity:
    kept: dict[str, Any] = {key: identity[key] for key in _MEANING if key in identity}
    kept["manifest"] = {key: value for key, value in identity["manifest"].items() if key != "device"}
    return kept


def _refuse_changed(plan: Plan, recorded: Identity, now: Identity, advice: str) -> None:
    changed = "; ".join(differences(recorded, now))
    if changed:
        raise ResumeError(f"{plan.output}: holds the result of another merge: {changed}; {advice}")


def _refuse_altered(plan: Plan, record: Mapping[str, Any], advice: str, *, full: bool) -> None:
    # A card is for people, who edit it.
    for problem in altered(plan.output, record, whole=full, but=(CARD,)):
        raise ResumeError(f"{problem}; {advice}")
