"""Adds an evaluation, a measurement of hidden states or further files to the record and the card of a result."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream.events import Listener, Warned, ignore_event
from regstream.output.card_sections import replace_sections
from regstream.output.record import CARD, PROVENANCE, file_entries, read_provenance, validate_record, write_provenance
from regstream.output.record_schema import BiasRecord, EvaluationRecord
from regstream.storage import durable
from regstream.storage.locking import exclusive_lock
from regstream.storage.run_folder import LOCK, STAGED, STATE, RunFolder

_Record = Mapping[str, Any]


def add_results(
    folder: Path,
    *,
    evaluation: EvaluationRecord | None = None,
    bias: Sequence[BiasRecord] | None = None,
    files: Iterable[str] = (),
    listener: Listener = ignore_event,
) -> None:
    """Put into a finished result's record what was found later, and into its card the scores and the pictures.

    Replaces what earlier calls put there. `files` are names of complete files in the folder, which belong to the result
    from then on. A card that was edited stays as it is, with a warning; so do both where the folder is read-only.

    Raises:
        InputError: there is no finished result in the folder, or its record is damaged.
        ResumeError: a run is writing to the folder.
    """
    state = RunFolder(folder / STATE, folder)
    state.check()
    try:
        durable.make_folder(state.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        listener(Warned(message=f"{folder}: {error.strerror}; the results are not added to its record and card"))
        return
    entries: dict[str, Any] = {}
    if evaluation is not None:
        entries["evaluation"] = evaluation.model_dump()
    if bias is not None:
        entries["bias"] = [measured.model_dump() for measured in bias]
    with exclusive_lock(state.path / LOCK, folder):
        try:
            _update(folder, entries, list(files), state.path / (STAGED + durable.TEMPORARY_SUFFIX), listener)
        finally:
            if state.has_only_lock:
                state.remove()


def _update(
    folder: Path, entries: Mapping[str, Any], names: Sequence[str], temporary: Path, listener: Listener
) -> None:
    before = read_provenance(folder)
    files = before["files"] | file_entries(folder, names)
    after = {**before, **entries, "files": files}
    if "evaluation" in entries or names:  # what the card has of them
        card = _updated_card(folder, before, after)
        if card is None:
            kept = f"edited or removed since it was written; the results are not added, but {PROVENANCE} has them"
            listener(Warned(message=f"{folder / CARD}: {kept}"))
        else:
            durable.write_file(folder / CARD, card, temporary)
            files |= file_entries(folder, [CARD])
    write_provenance(folder, after, files, temporary)


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
