"""Adds an evaluation or a measurement of hidden states to the record and the card of a result."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream.events import Listener, Warned, ignore_event
from regstream.output.card_sections import replace_sections
from regstream.output.locked_result import ReadOnlyFolder, locked_result
from regstream.output.record import CARD, PROVENANCE, file_entries, read_provenance, validate_record, write_provenance
from regstream.output.record_schema import BiasRecord, EvaluationRecord
from regstream.ranks.environment import ALONE, launched
from regstream.storage import durable

_Record = Mapping[str, Any]


def add_results(
    folder: Path,
    *,
    evaluation: EvaluationRecord | None = None,
    bias: Sequence[BiasRecord] | None = None,
    listener: Listener = ignore_event,
) -> None:
    """Put into a finished result's record what was found later, and the scores into its card.

    Replaces what earlier calls put there. A card that was edited stays as it is, with a warning; so do both where the
    folder is read-only. Of the ranks of a launcher only the first writes.

    Raises:
        InputError: there is no finished result in the folder, or its record is damaged.
        ResumeError: a run is writing to the folder.
    """
    if (launched() or ALONE).rank:
        return
    entries: dict[str, Any] = {}
    if evaluation is not None:
        entries["evaluation"] = evaluation.model_dump()
    if bias is not None:
        entries["bias"] = [measured.model_dump() for measured in bias]
    try:
        with locked_result(folder) as temporary:
            before = read_provenance(folder)
            after = {**before, **entries}
            if evaluation is not None:  # the card says nothing of distances
                after = update_card(folder, before, after, temporary, listener)
            write_provenance(folder, after, after["files"], temporary)
    except ReadOnlyFolder as error:
        listener(Warned(message=f"{error}; the results are not added to its record and card"))


def update_card(folder: Path, before: _Record, after: _Record, temporary: Path, listener: Listener) -> dict[str, Any]:
    """Write the card of the record `after`, which takes the place of `before`; returns it with the card's digest.

    The lock of the folder must be held. A card that was edited stays, with a warning.
    """
    card = _updated_card(folder, before, after)
    if card is None:
        kept = f"edited or removed since it was written; the results are not added, but {PROVENANCE} has them"
        listener(Warned(message=f"{folder / CARD}: {kept}"))
        return dict(after)
    durable.write_file(folder / CARD, card, temporary)
    return {**after, "files": after["files"] | file_entries(folder, [CARD])}


def _updated_card(folder: Path, before: _Record, after: _Record) -> bytes | None:
    """The card with the sections of the record `after`; None if it is not the one that the record `before` lists."""
    path = folder / CARD
    if path.is_symlink() or not path.is_file():
        return None
    content, recorded = path.read_bytes(), before["files"].get(CARD)
    try:
        updated = _with_sections(folder, content, after)
        # The new one, whose record an interrupted call did not update: with the sections of before it is the recorded.
        is_interrupted = content == updated and _is_recorded(_with_sections(folder, content, before), recorded)
    except UnicodeDecodeError:
        return None
    return updated if is_interrupted or _is_recorded(content, recorded) else None


def _with_sections(folder: Path, card: bytes, record: _Record) -> bytes:
    return replace_sections(card.decode(), validate_record(record, folder / PROVENANCE)).encode()


def _is_recorded(content: bytes, recorded: _Record | None) -> bool:
    return recorded is not None and hashlib.sha256(content).hexdigest() == recorded["sha256"]
