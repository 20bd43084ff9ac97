"""Where two configs of one class differ once their class has read them, whatever the spelling in the files."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from transformers import PreTrainedConfig

#: Activations that are the same function under several names, up to the rounding of one formula or another.
_SAME_ACTIVATIONS = (
    {"silu", "swish"},
    {"gelu", "gelu_python"},
    {"gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"},
)
ROPE = "rope_parameters"
#: What a table of rotary embeddings has where it does not say it.
_ROPE_DEFAULTS = {"partial_rotary_factor": 1.0, "rope_type": "default"}
#: Keys of transformers 4, which stood beside or in place of the table, and what the table calls them.
_ROPE_SPELLINGS = {
    "rope_theta": "rope_theta", "rope_local_base_freq": "rope_theta", "rotary_emb_base": "rope_theta",
    "partial_rotary_factor": "partial_rotary_factor", "rotary_pct": "partial_rotary_factor",
}  # fmt: skip
#: What Phi-3's configs have been calling one type.
_SAME_ROPE_TYPES = {"su", "yarn", "longrope"}
#: What a config's object keeps for itself, and implementations, which the engine chooses.
_OF_OBJECTS = {
    "_name_or_path", "_commit_hash", "_auto_class", "_post_init_done", "_output_attentions", "_sliding_window_pattern",
    "_attn_implementation_internal", "_attn_implementation_autoset", "_experts_implementation_internal",
    "ignore_keys_at_rope_validation",
}  # fmt: skip
#: Where it keeps what single layers have otherwise.
_LAYERS_OWN = "_heterogeneity_spec"
_ABSENT = "absent"
#: What transformers 4 wrote into every config as false.
_SWITCHED_OFF = {"add_cross_attention", "is_decoder", "tf_legacy_loss", "tie_encoder_decoder", "use_bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A key whose values differ: the class's attribute, what a person calls it, and both values."""

    attribute: str  # of the class, after the sub-configs that it is in
    leaf: str  # in a table that is the attribute's value, else the attribute itself
    shown: str
    value: Any
    base_value: Any
    is_default: bool = False  # the file says nothing of it
    contradicts: bool = False  # another value in the same file, which is the one that is taken

    @property
    def name(self) -> str:
        """The attribute without the sub-configs that it is in."""
        return self.attribute.rpartition(".")[2]

    @property
    def is_empty(self) -> bool:
        """Whether one file says nothing of it, and the other that there is none, as transformers 4 wrote of much."""
        nothing: list[Any] = [_ABSENT, None, {}, [], *([False] if self.name in _SWITCHED_OFF else [])]
        return all(value in nothing for value in (self.value, self.base_value))

    def __str__(self) -> str:
        beside = " beside another value, which transformers takes" if self.contradicts else ""
        beside += " (not in the file)" if self.is_default else ""
        of_base = "none" if self.base_value == _ABSENT else _in_json(self.base_value)
        return f"{self.shown} is {_in_json(self.value)}{beside}, where the base has {of_base}"


def differences(
    config: PreTrainedConfig, content: Mapping[str, Any], base: PreTrainedConfig, base_content: Mapping[str, Any]
) -> list[Difference]:
    """Where a config differs from the base's; `content` is what the file of each holds."""
    here, there = _leaves(config), _leaves(base)
    found = [
        Difference(
            attribute=attribute,
            leaf=leaf,
            shown=_shown(leaf, config, content, base_content),
            value=_as_named(config, attribute, here.get((attribute, leaf), _ABSENT)),
            is_default=(attribute, leaf) in here and not _states(content, _shown(leaf, config, content)),
            base_value=_as_named(base, attribute, there.get((attribute, leaf), _ABSENT)),
        )
        for attribute, leaf in dict.fromkeys([*here, *there])
        if here.get((attribute, leaf), _ABSENT) != there.get((attribute, leaf), _ABSENT)
    ]
    return found + list(_contradictions(config, content, base, base_content))


def unused_keys(config: PreTrainedConfig, content: Mapping[str, Any], base_content: Mapping[str, Any]) -> list[str]:
    """Keys of a file whose values its class does not take as they stand, and that the base's file has otherwise."""
    names, known = config.attribute_map, vars(config)
    return [
        key
        for key, value in content.items()
        if value is not None
        and not isinstance(value, Mapping)
        and key not in _ROPE_SPELLINGS
        and not key.startswith("_")
        and names.get(key, key) in known
        and _plain(key, value) != _plain(key, known[names.get(key, key)])
        and _plain(key, value) != _plain(key, base_content.get(key))
    ]


def _leaves(config: PreTrainedConfig, prefix: str = "") -> dict[tuple[str, str], Any]:
    """Values by attribute and by the key in it, where it is a table."""
    found: dict[tuple[str, str], Any] = {}
    declared = {field.name for field in fields(config)}
    has_table = isinstance(getattr(config, ROPE, None), Mapping)
    for key, value in vars(config).items():
        is_leftover = has_table and key in _ROPE_SPELLINGS and key not in declared  # the table has it
        if key in _OF_OBJECTS or is_leftover:
            continue
        attribute = prefix + key
        if key == _LAYERS_OWN:
            found["per_layer_config", "per_layer_config"] = _plain(key, getattr(value, "per_layer_overrides", value))
        elif isinstance(value, PreTrainedConfig):
            found |= _leaves(value, f"{attribute}.")
        elif key == ROPE and isinstance(value, Mapping):
            found |= {(attribute, f"{attribute}.{leaf}"): plain for leaf, plain in _rope_leaves(value)}
        else:
            found[attribute, attribute] = _plain(key, value)
    return found


def _rope_leaves(table: Mapping[str, Any], defaults: Mapping[str, Any] = _ROPE_DEFAULTS) -> Iterator[tuple[str, Any]]:
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in nested.items():
        yield from ((f"{key}.{leaf}", plain) for leaf, plain in _rope_leaves(value, defaults))
    if not table or len(nested) < len(table):
        old_spelling = {"rope_type": table["type"]} if "type" in table else {}
        flat = {key: value for key, value in table.items() if key not in nested and key != "type" and value is not None}
        yield from ((key, _plain(key, value)) for key, value in {**defaults, **old_spelling, **flat}.items())


def _plain(key: str, value: Any) -> Any:
    """A value by which to compare: one for all its spellings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, entry) for entry in value]
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, str) and "act" in key:
        return next((min(names) for names in _SAME_ACTIVATIONS if value in names), value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _contradictions(
    config: PreTrainedConfig, content: Mapping[str, Any], base: PreTrainedConfig, base_content: Mapping[str, Any]
) -> Iterator[Difference]:
    """Numbers for rotary embeddings that stand in the file beside others, which its class takes in their place."""
    if not isinstance(getattr(config, ROPE, None), Mapping):
        return
    taken = {
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
        if _is_number(value) and (name, value) not in taken and base_content.get(key) != content.get(key):
            of_base = next((v for leaf, v in base_leaves.items() if leaf.rpartition(".")[2] == name), _ABSENT)
            yield Difference(attribute=ROPE, leaf=name, shown=shown, value=value, base_value=of_base, contradicts=True)
    if any(content.get(table) != base_content.get(table) for table in ("rope_scaling", ROPE)):
        yield from _two_types(getattr(config, ROPE))


def _two_types(table: Mapping[str, Any]) -> Iterator[Difference]:
    """A type under the old key that is not the one under the new."""
    kind, old = table.get("rope_type"), table.get("type")
    if None not in (kind, old) and kind != old and not {str(kind), str(old)} <= _SAME_ROPE_TYPES:
        yield Difference(
            attribute=ROPE, leaf="type", shown="rope_scaling.type", value=old, base_value=kind, contradicts=True
        )
    for entry in table.values():
        if isinstance(entry, Mapping):
            yield from _two_types(entry)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_named(config: Any, attribute: str, plain: Any) -> Any:
    """A value by the name that the config has for it, where it has several."""
    for name in attribute.split("."):
        config = getattr(config, name, plain)
    return config if isinstance(config, str) and isinstance(plain, str) else plain


def _in_json(value: Any) -> str:
    """A value as a file spells it."""
    return "absent" if value == _ABSENT else json.dumps(value, default=str)


def _states(content: Mapping[str, Any], shown: str) -> bool:
    """Whether a file says something of a key, in whichever of its tables."""
    key = shown.rpartition(".")[2]
    is_here = key in content or (key == "rope_type" and "type" in content)
    return is_here or any(_states(value, key) for value in content.values() if isinstance(value, Mapping))


def _shown(leaf: str, config: PreTrainedConfig, *contents: Mapping[str, Any]) -> str:
    """A key as the files spell it."""
    names = [leaf, *(old for old, new in config.attribute_map.items() if new == leaf)]
    if leaf.startswith(f"{ROPE}.") and not any(ROPE in content for content in contents[:1]):
        plain = leaf.rpartition(".")[2]
        in_scaling = isinstance(contents[0].get("rope_scaling"), Mapping) and plain in contents[0]["rope_scaling"]
        old = [key for key, new in _ROPE_SPELLINGS.items() if new == plain and any(key in c for c in contents)]
        if "sliding" in leaf:
            old = [key for key in old if "local" in key]
        names = [f"rope_scaling.{plain}"] if in_scaling else old or [plain if plain in _ROPE_SPELLINGS else leaf]
        return names[0]
    return next((name for name in names if any(name in content for content in contents)), leaf)
