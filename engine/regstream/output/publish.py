"""The files beside the shards, written in an order in which a half-made result never loads."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream.events import Listener, Warned, ignore
from regstream.manifest.redaction import redact_json
from regstream.manifest.schema import STATE
from regstream.output.card import model_card
from regstream.output.damage import check_file
from regstream.output.local_paths import without_local_paths
from regstream.output.provenance import (
    MEASURED,
    PROVENANCE,
    file_entries,
    is_published,
    measured,
    provenance,
    read_provenance,
    record_files,
)
from regstream.plan.plan import Plan
from regstream.storage import durable
from regstream.storage.identity import Identity
from regstream.storage.journal import Committed
from regstream.storage.locking import exclusive
from regstream.storage.run_folder import LOCK, PUBLISHED, RunFolder
from regstream.validation.auxiliary_files import companions, published_config

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
CARD = "README.md"
_TEMPORARY = PUBLISHED + durable.TEMPORARY_SUFFIX


def result_files(plan: Plan) -> frozenset[str]:
    """Every file that a run of the plan writes into its output, by its name there."""
    shards = {step.shard for step in plan.steps}
    return frozenset({*shards, *companions(plan.base.folder), CARD, MEASURED, INDEX, CONFIG, PROVENANCE})


def copied_files(plan: Plan) -> list[Path]:
    """The base's files that go into the result as they are."""
    return [plan.base.folder / name for name in companions(plan.base.folder)]


def publish(plan: Plan, identity: Identity, committed: Sequence[Committed]) -> None:
    """Turn the committed shards into a model that loads: companions and card first, then index, config, provenance.

    Every file is written atomically, so this can be interrupted and repeated at any point.
    """
    folder = plan.output
    names = companions(plan.base.folder)
    for name in names:
        durable.make_folder((folder / name).parent)
        _write(plan, name, without_local_paths(name, (plan.base.folder / name).read_bytes()))
    _write(plan, CARD, model_card(plan, results=None).encode())
    _write(plan, MEASURED, _json(measured(committed)))
    _write(plan, INDEX, _json(_index(plan)))
    _write(plan, CONFIG, _json(_config(plan)))
    files = file_entries(folder, [*names, CARD, INDEX, CONFIG])
    for step in committed:
        files[step.shard] = {"bytes": step.shard_bytes, "sha256": step.shard_sha256, "sampled": step.shard_sampled}
    record_files(folder, provenance(plan, identity, committed), files, _temporary(plan))


def add_results(folder: Path, plan: Plan, results: str, listener: Listener = ignore) -> None:
    """Put a table of results, in Markdown, into a finished result's card, and the card's new digest on record.

    A card that someone has edited, or that cannot be written, is left as it is, with a warning.

    Raises:
        InputError: there is no finished result in the folder, or its record is damaged.
        ResumeError: a run is at work there.
    """
    state = RunFolder(folder / STATE, folder)
    temporary = state.path / _TEMPORARY
    state.check()
    try:
        durable.make_folder(state.path)
    except OSError as error:
        if error.errno not in durable.NOT_WRITABLE:
            raise
        listener(Warned(message=f"{folder}: {error.strerror}; the results are not put into its card"))
        return
    with exclusive(state.path / LOCK, folder):
        record = read_provenance(folder)
        card = model_card(plan, results=results).encode()
        try:
            if _is_own_card(folder / CARD, record, card):
                durable.write_file(folder / CARD, card, temporary)
                record_files(folder, record, record["files"] | file_entries(folder, [CARD]), temporary)
            else:
                listener(Warned(message=f"{folder / CARD}: edited since it was made; the results are not put into it"))
        finally:
            if state.has_only_lock:
                state.remove()


def _is_own_card(path: Path, record: Mapping[str, Any], card: bytes) -> bool:
    """Whether the card is as recorded, or as a call that was cut off left it before its record."""
    if not os.path.lexists(path):
        return True
    if path.is_symlink() or not path.is_file():
        return False
    recorded = record["files"].get(CARD)
    return (recorded is not None and not any(check_file(path, recorded))) or path.read_bytes() == card


def published_commits(folder: Path) -> dict[str, str]:
    """The commits of the hub that the result in a folder was made of; none where there is no result.

    Raises:
        InputError: its record is damaged.
    """
    commits: dict[str, str] = read_provenance(folder)["identity"].get("hub", {}) if is_published(folder) else {}
    return commits


def _write(plan: Plan, name: str, data: bytes) -> None:
    durable.write_file(plan.output / name, data, _temporary(plan))


def _temporary(plan: Plan) -> Path:
    """Where a file of the result is until it is whole: in a folder of the run's own, where it replaces nobody's."""
    return plan.state / _TEMPORARY


def _index(plan: Plan) -> dict[str, Any]:
    weight_map = {name: step.shard for step in plan.steps for name in plan.stored_shapes(step)}
    num_values = sum(_num_values(shape) for step in plan.steps for shape in step.shapes.values())
    return {
        "metadata": {"total_parameters": num_values, "total_size": num_values * plan.output_dtype.itemsize},
        "weight_map": dict(sorted(weight_map.items())),
    }


def _num_values(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _config(plan: Plan) -> dict[str, Any]:
    config: dict[str, Any] = redact_json(published_config(plan.base.config), dropped=("name_or_path",))
    # Of the class whose parameters it holds, whatever heads the base had, and whatever code named another.
    config["architectures"] = [type(plan.model.model).__name__]
    if plan.base.family.nested_config:
        config["model_type"] = plan.base.family.model_types[0]
    return {**config, "dtype": str(plan.output_dtype).removeprefix("torch.")}


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
