"""The settings of a manifest that determine the result."""

from typing import Any

from regstream.manifest.architecture import ArchitectureTable
from regstream.manifest.blocks import parse_blocks
from regstream.manifest.rule_table import Rule
from regstream.manifest.schema import Candidate, Manifest, Merge
from regstream.methods import AUTO, AUTO_METHOD, make_method


def canonical_config(manifest: Manifest, *, device: str | None = None) -> dict[str, Any]:
    """A dictionary for JSON that is equal for two manifests exactly if they describe the same computation.

    It leaves out spelling, paths, model references, budgets, evaluation, and keys that the method does not read. It
    holds a device's type without its index: `device` overrides the manifest's.
    """
    device = device or manifest.resources.device
    merge, architecture = manifest.merge, manifest.architecture
    return {
        "method": merge.method,
        **({"tuned": AUTO_METHOD.name} if merge.method == AUTO else {}),
        **_options(merge),
        **merge.model_dump(include={"dtype", "shard_size", "seed", "others"}),
        "device": None if device is None else device.partition(":")[0],
        "architecture": None if architecture is None else _architecture(architecture),
        "rules": [_rule(rule) for rule in manifest.rules],
        "candidates": [
            {**_candidate(candidate, share, merge.regresses), **_own_options(candidate, merge)}
            for candidate, share in zip(manifest.candidates, manifest.shares, strict=True)
        ],
    }


def _options(merge: Merge) -> dict[str, Any]:
    # What candidates may have of their own, each has as it is in effect.
    method = make_method(merge.method, merge.options)
    return merge.options.model_dump(exclude={*method.own_options, *method.unused_options()})


def _own_options(candidate: Candidate, merge: Merge) -> dict[str, Any]:
    common = merge.options.model_dump()
    keys = make_method(merge.method, merge.options).own_options
    return {key: common[key] if (own := getattr(candidate, key)) is None else own for key in keys}


def _architecture(architecture: ArchitectureTable) -> dict[str, Any]:
    # Verifying a result parses this table again. Only an evaluation reads `pooled`.
    return architecture.model_dump(mode="json", exclude={"pooled"}, exclude_none=True)


def _rule(rule: Rule) -> dict[str, Any]:
    blocks = None if rule.blocks is None else str(parse_blocks(rule.blocks))
    return {"parameters": rule.parameters, "blocks": blocks, "use": rule.use}


def _candidate(candidate: Candidate, share: float, regresses: bool) -> dict[str, Any]:
    # A method without regressions does not read calibration sets.
    rows = candidate.calibration if regresses else None
    keys = {"field", "images", "rows", "max_length", "batch_rows"}
    calibration = None if rows is None else rows.model_dump(include=keys)
    return {"name": candidate.name, "weight": share, "calibration": calibration}
