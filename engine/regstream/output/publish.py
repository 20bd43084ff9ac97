"""Writes the files beside the shards, in an order in which a partial result never loads."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regstream.manifest.redaction import redact_json
from regstream.output.local_paths import remove_local_paths
from regstream.output.model_card import model_card
from regstream.output.provenance import measurements, provenance
from regstream.output.record import (
    CARD,
    MEASURED,
    PROVENANCE,
    file_entries,
    is_of_report,
    read_provenance,
    write_provenance,
)
from regstream.output.record_schema import ResultRecord
from regstream.planning.plan import Plan
from regstream.storage import durable
from regstream.storage.identity_differences import Identity
from regstream.storage.journal import CommittedStep
from regstream.storage.json_file import dump_json
from regstream.storage.run_folder import STAGED
from regstream.validation.auxiliary_files import auxiliary_files, published_config

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_TEMPORARY = STAGED + durable.TEMPORARY_SUFFIX


def result_files(plan: Plan) -> frozenset[str]:
    """The names of all files that a run of the plan writes into its output folder."""
    shards = {step.shard for step in plan.steps}
    return frozenset({*shards, *auxiliary_files(plan.tokenizer.folder), CARD, MEASURED, INDEX, CONFIG, PROVENANCE})


def copied_files(plan: Plan) -> list[Path]:
    """The files that are copied into the result, or decide the tokenizer in it."""
    tokenizer = (path for files in plan.tokenizer.files.values() for path in files.values())
    return [*(plan.base.folder / name for name in auxiliary_files(plan.base.folder)), *tokenizer]


def changed_copies(plan: Plan) -> list[str]:
    """The names of files beside its weights that a finished result has, and would have no longer, or otherwise."""
    files, base = read_provenance(plan.output)["files"], plan.tokenizer.folder
    names = auxiliary_files(base)
    found = {name: hashlib.sha256(remove_local_paths(name, (base / name).read_bytes())).hexdigest() for name in names}
    changed = [name for name, digest in found.items() if files.get(name, {}).get("sha256") != digest]
    others = files.keys() - result_files(plan)
    return sorted([*changed, *(name for name in others if not is_of_report(name))])


def publish(plan: Plan, identity: Identity, committed: Sequence[CommittedStep]) -> None:
    """Turn the committed shards into a model that loads: first auxiliary files and card, then index, config, record.

    Every file is written atomically, so that this can be interrupted and repeated at any point.
    """
    folder = plan.output
    names = auxiliary_files(plan.tokenizer.folder)
    for name in names:
        durable.make_folder((folder / name).parent)
        _write(plan, name, remove_local_paths(name, (plan.tokenizer.folder / name).read_bytes()))
    record = provenance(plan, identity, committed)
    so_far = ResultRecord.model_validate_json(dump_json({**record, "files": {}, "sha256": ""}))
    _write(plan, CARD, model_card(plan, so_far).encode())
    _write(plan, MEASURED, dump_json(measurements(committed)))
    _write(plan, INDEX, dump_json(_index(plan)))
    _write(plan, CONFIG, dump_json(_config(plan)))
    files = file_entries(folder, [*names, CARD, INDEX, CONFIG])
    for step in committed:
        files[step.shard] = {"bytes": step.shard_bytes, "sha256": step.shard_sha256, "sampled": step.shard_sampled}
    write_provenance(folder, record, files, _temporary(plan))


def _write(plan: Plan, name: str, data: bytes) -> None:
    durable.write_file(plan.output / name, data, _temporary(plan))


def _temporary(plan: Plan) -> Path:
    """The path of a file that is being written: in the run's own folder, where it replaces no file of others."""
    return plan.state / _TEMPORARY


def _index(plan: Plan) -> dict[str, Any]:
    weight_map = {p.stored_name: step.shard for step in plan.steps for p in step.parameters}
    num_values = sum(math.prod(shape) for step in plan.steps for shape in step.shapes.values())
    return {
        "metadata": {"total_parameters": num_values, "total_size": num_values * plan.output_dtype.itemsize},
        "weight_map": dict(sorted(weight_map.items())),
    }


def _config(plan: Plan) -> dict[str, Any]:
    config: dict[str, Any] = redact_json(published_config(plan.base.config), dropped=("name_or_path",))
    # The class of the merged model: the base's config may name one with a head, or one of its own code.
    config["architectures"] = [type(plan.model.model).__name__]
    if (
        plan.base.architecture.nested is not None
        or plan.base.architecture.file_type != plan.base.architecture.model_type
    ):
        config["model_type"] = plan.base.architecture.model_type
    config |= _classes_of_head(plan)
    return {**config, "dtype": str(plan.output_dtype).removeprefix("torch.")}


def _classes_of_head(plan: Plan) -> dict[str, Any]:
    """The names of a classifier's classes, of the candidate whose head the result has."""
    named = plan.manifest.merge.others.head
    owner = next((c.checkpoint.config for c in plan.candidates if c.name == named), {})
    return {key: owner[key] for key in ("id2label", "label2id", "problem_type") if key in owner}
