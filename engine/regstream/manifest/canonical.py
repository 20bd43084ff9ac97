"""The settings of a manifest that determine the result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream.manifest.architecture import ArchitectureTable
from regstream.manifest.blocks import parse_blocks
from regstream.manifest.rule_table import USE, Rule
from regstream.manifest.schema import Candidate, Manifest, Merge
from regstream.manifest.shares import shares
from regstream.manifest.tokenizer_keys import reads_tokenizers, template_source
from regstream.methods import AUTO, AUTO_METHOD, make_method
from regstream.methods.by_block import ByBlock


def canonical_config(manifest: Manifest, *, device: str | None = None) -> dict[str, Any]:
    """A dictionary for JSON that is equal for two manifests exactly if they describe the same computation.

    It leaves out spelling, paths, model references, budgets, evaluation, and keys that the method does not read. It
    holds a device's type without its index: `device` overrides the manifest's.
    """
    device = device or manifest.resources.device
    merge, architecture = manifest.merge, manifest.architecture
    config = {
        "method": merge.method,
        **({"tuned": AUTO_METHOD.name} if merge.method == AUTO else {}),
        **_options(merge),
        **merge.model_dump(include={"dtype", "shard_size", "seed", "others"}),
        **_tokenizer(merge),
        "device": None if device is None else device.partition(":")[0],
        "architecture": None if architecture is None else _architecture(architecture),
        "rules": [_rule(rule) for rule in manifest.rules],
        "candidates": [
            {**_candidate(candidate, weight, merge.regresses), **_own_options(candidate, merge)}
            for candidate, weight in zip(manifest.candidates, _weights(manifest), strict=True)
        ],
    }
    lists: dict[str, Any] = _with_lists(config)
    return lists


def _with_lists(value: Any) -> Any:
    """The same with lists in place of tuples, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _with_lists(inner) for key, inner in value.items()}
    return [_with_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def _weights(manifest: Manifest) -> Sequence[ByBlock]:
    """The candidates' shares, since only ratios count; their weights where these are not the same everywhere."""
    weights = [candidate.weight for candidate in manifest.candidates]
    plain = [weight for weight in weights if not isinstance(weight, tuple)]
    is_given = any(setting.key == "weight" for rule in manifest.rules for setting in rule.settings)
    return weights if is_given or len(plain) < len(weights) else shares(plain)


def _options(merge: Merge) -> dict[str, Any]:
    # What candidates may have of their own, each has as it is in effect.
    method = make_method(merge.method, merge.options)
    return merge.options.model_dump(exclude={*method.own_options, *method.unused_options()})


def _tokenizer(merge: Merge) -> dict[str, Any]:
    """What differs from the base's tokenizer, template and vocabulary; a template's file is an input of its own."""
    template, default = template_source(merge), template_source(merge.model_copy(update={"chat_template": None}))
    found = {
        "tokenizer": merge.tokenizer if reads_tokenizers(merge) else None,
        "chat_template": "file" if isinstance(template, Path) else template if template != default else None,
        "pad_to_multiple_of": merge.pad_to_multiple_of,
    }
    return {key: value for key, value in found.items() if value is not None}


def _own_options(candidate: Candidate, merge: Merge) -> dict[str, Any]:
    common = merge.options.model_dump()
    keys = make_method(merge.method, merge.options).own_options
    return {key: common[key] if (own := getattr(candidate, key)) is None else own for key in keys}


def _architecture(architecture: ArchitectureTable) -> dict[str, Any]:
    # Verifying a result parses this table again. Only an evaluation reads `pooled`.
    return architecture.model_dump(mode="json", exclude={"pooled"}, exclude_none=True)


def _rule(rule: Rule) -> dict[str, Any]:
    blocks = None if rule.blocks is None else str(parse_blocks(rule.blocks))
    varying = {} if rule.candidate is None else {"candidate": rule.candidate}
    given = {setting.key: value for setting, value in rule.settings.items() if setting != USE}
    return {"parameters": rule.parameters, "blocks": blocks, "use": rule.use, **varying, **given}


def _candidate(candidate: Candidate, weight: ByBlock, regresses: bool) -> dict[str, Any]:
    # A method without regressions does not read calibration sets.
    rows = candidate.calibration if regresses else None
    keys = {"field", "images", "rows", "max_length", "batch_rows"}
    calibration = None if rows is None else rows.model_dump(include=keys)
    return {"name": candidate.name, "weight": weight, "calibration": calibration}
