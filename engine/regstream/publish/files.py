"""The files beside the shards, written in an order in which a half-made result never loads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regstream import durable
from regstream.journal import Committed, Identity
from regstream.plan import BROUGHT, Plan, companions, published_config
from regstream.publish.auxiliary import without_local_paths
from regstream.publish.card import model_card
from regstream.publish.provenance import (
    MEASURED,
    PROVENANCE,
    file_digests,
    measured,
    provenance,
    read_provenance,
    record_files,
)
from regstream.redaction import redact_values

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
CARD = "README.md"


def publish(plan: Plan, identity: Identity, committed: Sequence[Committed]) -> None:
    """Turn the committed shards into a model that loads: companions and card first, then index, config, provenance.

    Every file is written atomically, so this can be interrupted and repeated at any point. The run's state is removed
    last.
    """
    folder = plan.output
    names = companions(plan.base.folder)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        durable.write_file(folder / name, without_local_paths(name, (plan.base.folder / name).read_bytes()))
    durable.write_file(folder / CARD, model_card(plan, results=None).encode())
    durable.write_file(folder / MEASURED, _json(measured(committed)))
    durable.write_file(folder / INDEX, _json(_index(plan)))
    durable.write_file(folder / CONFIG, _json(_config(plan)))
    digests = file_digests(folder, [*names, CARD, INDEX, CONFIG])
    shards = {step.shard: (step.shard_bytes, step.shard_sha256) for step in committed}
    record_files(folder, provenance(plan, identity, committed), digests | shards)
    durable.remove_tree(plan.workdir)


def add_results(folder: Path, plan: Plan, results: str) -> None:
    """Put a table of results, in Markdown, into a finished result's card, and the card's new digest on record.

    Raises:
        InputError: there is no finished result in the folder, or its record is damaged.
    """
    record = read_provenance(folder)
    durable.write_file(folder / CARD, model_card(plan, results=results).encode())
    digests = {name: (entry["bytes"], entry["sha256"]) for name, entry in record["files"].items()}
    record_files(folder, record, digests | file_digests(folder, [CARD]))


def published_commits(folder: Path) -> dict[str, str]:
    """The commits of the hub that the result in a folder was made of; none where there is no result.

    Raises:
        InputError: its record is damaged.
    """
    commits: dict[str, str] = read_provenance(folder)["identity"].get("hub", {}) if is_published(folder) else {}
    return commits


def is_published(folder: Path) -> bool:
    """Whether a finished result stands in a folder."""
    return (folder / PROVENANCE).exists()


def clear(plan: Plan) -> None:
    """Remove what an earlier run left: first what makes a result load, then the rest, and all state of the work.

    The lock stays, and the record of what was brought from the hub, which is still there.
    """
    folder = plan.output
    shards = sorted(folder.glob("model-*-of-*.safetensors*"))
    for path in [folder / name for name in (PROVENANCE, CONFIG, INDEX, CARD, MEASURED)] + shards:
        path.unlink(missing_ok=True)
    durable.sync_folder(folder)
    for path in plan.workdir.iterdir():
        if path.is_dir():
            durable.remove_tree(path)
        elif path.name not in ("lock", BROUGHT):
            path.unlink()
    durable.sync_folder(plan.workdir)


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
    config: dict[str, Any] = redact_values(published_config(plan.base.config), dropped=("name_or_path",))
    # Of the class whose parameters it holds, whatever heads the base had, and whatever code named another.
    config["architectures"] = [type(plan.model.model).__name__]
    if plan.base.family.nested_config:
        config["model_type"] = plan.base.family.model_types[0]
    return {**config, "dtype": str(plan.output_dtype).removeprefix("torch.")}


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
