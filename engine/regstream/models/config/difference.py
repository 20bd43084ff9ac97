"""The differences between two configs of one class, as the class reads them, whatever the spelling in the files."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from transformers import PreTrainedConfig

from regstream.models.config.build import tagged_float

#: Names of the same activation function, up to rounding.
_SAME_ACTIVATIONS = (
    {"silu", "swish"},
    {"gelu", "gelu_python"},
    {"gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"},
)
ROPE = "rope_parameters"
#: Defaults of a table of rotary embeddings.
_ROPE_DEFAULTS = {"partial_rotary_factor": 1.0, "rope_type": "default"}
#: Keys of transformers 4 outside the table, and the keys that the table has for them.
_ROPE_SPELLINGS = {
    "rope_theta": "rope_theta", "rope_local_base_freq": "rope_theta", "rotary_emb_base": "rope_theta",
    "partial_rotary_factor": "partial_rotary_factor", "rotary_pct": "partial_rotary_factor",
}  # fmt: skip
#: Names that Phi-3's configs use for one type.
_SAME_ROPE_TYPES = {"su", "yarn", "longrope"}
#: Internal attributes of a config object, and implementations, which the engine chooses.
_INTERNAL = {
    "_name_or_path", "_commit_hash", "_auto_class", "_post_init_done", "_output_attentions", "_sliding_window_pattern",
    "_attn_implementation_internal", "_attn_implementation_autoset", "_experts_implementation_internal",
    "ignore_keys_at_rope_validation",
}  # fmt: skip
#: The attribute with the settings of single layers.
_PER_LAYER = "_heterogeneity_spec"
_ABSENT = "absent"
#: Keys that transformers 4 wrote into every config as false.
_FALSE_BY_DEFAULT = {"add_cross_attention", "is_decoder", "tf_legacy_loss", "tie_encoder_decoder", "use_bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A key whose values differ."""

    attribute: str  # of the config class, with its sub-configs: `vision_config.hidden_size`
    leaf: str  # the key within the attribute's table, else the attribute
    shown: str  # the key as the files spell it
    value: Any
    base_value: Any
    is_default: bool = False  # the file omits it
    contradicts: bool = False  # the same file has another value, which the class takes

    @property
    def name(self) -> str:
        """The attribute without its sub-configs."""
        return self.attribute.rpartition(".")[2]

    @property
    def is_empty(self) -> bool:
        """Whether one file omits the key and the other has an empty value, as transformers 4 wrote for many keys."""
        empty: list[Any] = [_ABSENT, None, {}, [], *([False] if self.name in _FALSE_BY_DEFAULT else [])]
        return all(value in empty for value in (self.value, self.base_value))

    def __str__(self) -> str:
        note = " beside another value, which transformers uses" if self.contradicts else ""
        note += " (not in the file)" if self.is_default else ""
        of_base = "none" if self.base_value == _ABSENT else _in_json(self.base_value)
        return f"{self.shown} is {_in_json(self.value)}{note}, where the base has {of_base}"


def config_differences(
    config: PreTrainedConfig, content: Mapping[str, Any], base: PreTrainedConfig, base_content: Mapping[str, Any]
) -> list[Difference]:
    """List the differences of a config from the base's; `content` is the JSON of each file."""
    leaves, base_leaves = _leaves(config), _leaves(base)
    changed = [
        Difference(
            attribute=attribute,
            leaf=leaf,
            shown=_file_key(leaf, config, content, base_content),
            value=_own_spelling(config, attribute, leaves.get((attribute, leaf), _ABSENT)),
            is_default=(attribute, leaf) in leaves and not _contains(content, _file_key(leaf, config, content)),
            base_value=_own_spelling(base, attribute, base_leaves.get((attribute, leaf), _ABSENT)),
        )
        for attribute, leaf in dict.fromkeys([*leaves, *base_leaves])
        if leaves.get((attribute, leaf), _ABSENT) != base_leaves.get((attribute, leaf), _ABSENT)
    ]
    return changed + list(_contradictions(config, content, base, base_content))


def unused_keys(config: PreTrainedConfig, content: Mapping[str, Any], base_content: Mapping[str, Any]) -> list[str]:
    """Keys whose values the config class ignores or changes, and that have other values in the base's file."""
    names, attributes = config.attribute_map, vars(config)
    return [
        key
        for key, value in content.items()
        if value is not None
        and not isinstance(value, Mapping)
        and key not in _ROPE_SPELLINGS
        and not key.startswith("_")
        and names.get(key, key) in attributes
        and _normalize(key, value) != _normalize(key, attributes[names.get(key, key)])
        and _normalize(key, value) != _normalize(key, base_content.get(key))
    ]


def _leaves(config: PreTrainedConfig, prefix: str = "") -> dict[tuple[str, str], Any]:
    """Values by attribute and leaf."""
    leaves: dict[tuple[str, str], Any] = {}
    declared = {field.name for field in fields(config)}
    has_table = isinstance(getattr(config, ROPE, None), Mapping)
    for key, value in vars(config).items():
        is_leftover = has_table and key in _ROPE_SPELLINGS and key not in declared  # the table contains it
        if key in _INTERNAL or is_leftover:
            continue
        attribute = prefix + key
        if key == _PER_LAYER:
            overrides = getattr(value, "per_layer_overrides", value)
            leaves["per_layer_config", "per_layer_config"] = _normalize(key, overrides)
        elif isinstance(value, PreTrainedConfig):
            leaves |= _leaves(value, f"{attribute}.")
        elif key == ROPE and isinstance(value, Mapping):
            leaves |= {(attribute, f"{attribute}.{leaf}"): plain for leaf, plain in _rope_leaves(value)}
        else:
            leaves[attribute, attribute] = _normalize(key, value)
    return leaves


def _rope_leaves(table: Mapping[str, Any], defaults: Mapping[str, Any] = _ROPE_DEFAULTS) -> Iterator[tuple[str, Any]]:
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in nested.items():
        yield from ((f"{key}.{leaf}", plain) for leaf, plain in _rope_leaves(value, defaults))
    if not table or len(nested) < len(table):
        old_spelling = {"rope_type": table["type"]} if "type" in table else {}
        flat = {key: value for key, value in table.items() if key not in nested and key != "type" and value is not None}
        yield from ((key, _normalize(key, value)) for key, value in {**defaults, **old_spelling, **flat}.items())


def _normalize(key: str, value: Any) -> Any:
    """A value for comparisons, the same for all spellings."""
    if isinstance(value, Mapping):
        if (number := tagged_float(value)) is not None:
            return _normalize(key, number)
        return {str(name): _normalize(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_normalize(key, entry) for entry in value]
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, str) and "act" in key:
        return next((min(names) for names in _SAME_ACTIVATIONS if value in names), value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _contradictions(
    config: PreTrainedConfig, content: Mapping[str, Any], base: PreTrainedConfig, base_content: Mapping[str, Any]
) -> Iterator[Difference]:
    """Numbers for rotary embeddings in the file that the class ignores in favour of others in the same file."""
    if not isinstance(getattr(config, ROPE, None), Mapping):
        return
    effective = {
        (leaf.rpartition(".")[2], value) for leaf, value in _rope_leaves(getattr(config, ROPE)) if _is_number(value)
    }
    stated = [(key, key, value) for key, value in content.items() if key in _ROPE_SPELLINGS]
    for table in ("rope_scaling", ROPE):
        if isinstance(content.get(table), Mapping):
            leaves = _rope_leaves(content[table], defaults={})
            stated += [(table, f"{table}.{leaf}", value) for leaf, value in leaves]
    base_leaves = dict(_rope_leaves(getattr(base, ROPE, None) or {}))
    for key, shown, value in stated:
        name = shown.rpartition(".")[2]
        name = _ROPE_SPELLINGS.get(name, name)
        if _is_number(value) and (name, value) not in effective and base_content.get(key) != content.get(key):
            of_base = next((v for leaf, v in base_leaves.items() if leaf.rpartition(".")[2] == name), _ABSENT)
            yield Difference(attribute=ROPE, leaf=name, shown=shown, value=value, base_value=of_base, contradicts=True)
    if any(content.get(table) != base_content.get(table) for table in ("rope_scaling", ROPE)):
        yield from _contradicting_types(getattr(config, ROPE))


def _contradicting_types(table: Mapping[str, Any]) -> Iterator[Difference]:
    """A rope type under the old key `type` that contradicts the one under `rope_type`."""
    kind, old = table.get("rope_type"), table.get("type")
    if None not in (kind, old) and kind != old and not {str(kind), str(old)} <= _SAME_ROPE_TYPES:
        yield Difference(
            attribute=ROPE, leaf="type", shown="rope_scaling.type", value=old, base_value=kind, contradicts=True
        )
    for entry in table.values():
        if isinstance(entry, Mapping):
            yield from _contradicting_types(entry)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _own_spelling(config: Any, attribute: str, plain: Any) -> Any:
    """The config's own spelling of a value that has several."""
    for name in attribute.split("."):
        config = getattr(config, name, plain)
    return config if isinstance(config, str) and isinstance(plain, str) else plain


def _in_json(value: Any) -> str:
    return "absent" if value == _ABSENT else json.dumps(value, default=str)


def _contains(content: Mapping[str, Any], shown: str) -> bool:
    key = shown.rpartition(".")[2]
    is_present = key in content or (key == "rope_type" and "type" in content)
    return is_present or any(_contains(value, key) for value in content.values() if isinstance(value, Mapping))


def _file_key(leaf: str, config: PreTrainedConfig, *contents: Mapping[str, Any]) -> str:
    """A key as the files spell it."""
    if leaf.startswith(f"{ROPE}.") and ROPE not in contents[0]:
        plain = leaf.rpartition(".")[2]
        in_scaling = isinstance(contents[0].get("rope_scaling"), Mapping) and plain in contents[0]["rope_scaling"]
        old = [key for key, new in _ROPE_SPELLINGS.items() if new == plain and any(key in c for c in contents)]
        if "sliding" in leaf:
            old = [key for key in old if "local" in key]
        other = plain if plain in _ROPE_SPELLINGS else leaf
        return f"rope_scaling.{plain}" if in_scaling else next(iter(old), other)
    names = [leaf, *(old for old, new in config.attribute_map.items() if new == leaf)]
    return next((name for name in names if any(name in content for content in contents)), leaf)
