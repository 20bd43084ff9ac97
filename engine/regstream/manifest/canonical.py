"""What the result of a manifest depends on, apart from the contents of checkpoints and calibration sets."""

from typing import Any

from regstream.manifest.blocks import parse_blocks
from regstream.manifest.schema import Architecture, Calibration, Candidate, Manifest, Merge, Rule


def meaning(manifest: Manifest, *, device: str | None = None) -> dict[str, Any]:
    """A dictionary for JSON that is equal for two manifests exactly if they ask for the same computation.

    Spelling, places, budgets and evaluation are left out, as are keys that the method does not read. `device` is the
    one that was chosen where the manifest leaves it open; of a device only its kind counts.
    """
    chosen = device or manifest.resources.device
    return {
        **_merge(manifest.merge),
        "device": None if chosen is None else chosen.partition(":")[0],
        "architecture": None if manifest.architecture is None else _architecture(manifest.architecture),
        "rules": [_rule(rule) for rule in manifest.rules],
        "candidates": [
            _candidate(candidate, share, manifest.merge.regresses)
            for candidate, share in zip(manifest.candidates, manifest.shares, strict=True)
        ],
    }


def _merge(merge: Merge) -> dict[str, Any]:
    return {
        "method": merge.method,
        "alpha": merge.alpha if merge.regresses else None,
        "scale": merge.scale if merge.method == "task_arithmetic" else None,
        "dtype": merge.dtype,
        "shard_size": merge.shard_size,
        "seed": merge.seed,
        "others": merge.others.model_dump(),
    }


def _architecture(architecture: Architecture) -> dict[str, Any]:
    # As a table that can be read again: a result is verified by it. Only evaluation takes `pooled`.
    return architecture.model_dump(mode="json", exclude={"pooled"}) | {"body": architecture.running_body}


def _rule(rule: Rule) -> dict[str, Any]:
    blocks = None if rule.blocks is None else str(parse_blocks(rule.blocks))
    return {"parameters": rule.parameters, "blocks": blocks, "use": rule.use}


def _candidate(candidate: Candidate, share: float, regresses: bool) -> dict[str, Any]:
    # A method that regresses nothing never opens a calibration set, so changing one changes nothing.
    calibration = _calibration(candidate.calibration) if regresses and candidate.calibration else None
    return {"name": candidate.name, "weight": share, "calibration": calibration}


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return calibration.model_dump(include={"field", "rows", "max_length", "batch_rows"})
