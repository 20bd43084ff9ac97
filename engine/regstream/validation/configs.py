"""Compares the config.json of a candidate with the base's: both must describe models that compute the same.

Configs are compared as transformers reads them. A difference is harmless if the key is listed here, if the model's
code does not read the key, or if it builds the same model from both values.
"""

import json
import re
import sys
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import cached_property
from operator import attrgetter
from typing import Any

import torch
from transformers import PreTrainedConfig

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.errors import InputError
from regstream.models.config.config_file import CONFIG
from regstream.models.config.difference import ROPE, Difference, config_differences, unused_keys
from regstream.models.config.remote_code import unused_implementations
from regstream.models.config.same_model import same_model
from regstream.models.derivation.keys_read import KeysRead, keys_read_by_model
from regstream.models.empty_model import empty_model
from regstream.models.layered_model import LayeredModel

#: Keys for a config's origin, its storage and a model's further outputs: neither compared nor named in warnings.
_IGNORED_KEYS = re.compile(
    r"transformers_version|name_or_path|architectures|dtype|torch_dtype|model_type|id2label|label2id|num_labels"
    r"|problem_type|return_dict|output_hidden_states|output_attentions|use_cache|gradient_checkpointing|torchscript"
    r"|use_return_dict|finetuning_task|task_specific_params|unsloth_.*|tokenizer_class"
)
#: Keys for training, task heads and tokenizers, and sizes that the tensors' shapes are checked for.
_HARMLESS_KEYS = re.compile(
    r"(?!token_dropout).*dropout.*|.*pdrop|.*_drop|layerdrop|drop_path_rate|initializer_.*|init_std|summary_.*"
    r"|(bos|eos|sep|cls|unk|decoder_start|forced_bos|forced_eos)_token_id"
    r"|quantization_config|projection_dim|(decoder_)?vocab_size|router_aux_loss_coef|output_router_logits|chunk_size_feed_forward|pretraining_tp"
)
#: Keys that older versions of transformers compute with, though this one may not read them, and their defaults.
_LEGACY_DEFAULTS = {"position_embedding_type": "absolute", "per_layer_config": None}
#: Types of rotary embeddings that depend on the longest position, and the keys that give it.
_LENGTH_ROPE_TYPES = ("dynamic", "longrope", "yarn", "su")
_LENGTH_KEYS = ("max_position_embeddings", "n_positions")
#: The function with which RoBERTa-like models number positions from the padding token's id on.
_PADDING_POSITIONS = "create_position_ids_from_input_ids"
_MAX_NAMES = 4


class ConfigComparison:
    """Compares candidates' configs with the base's, whose `model` is given."""

    def __init__(self, base: Checkpoint, model: LayeredModel) -> None:
        self._base = base
        self._model = model

    def base_warnings(self) -> list[str]:
        """A warning where the base's config names an attention implementation from another package; else nothing."""
        requested = ", ".join(unused_implementations(self._base.config))
        used = getattr(self._model.model.config, "_attn_implementation", None)
        if not requested:
            return []
        return [f"{self._base.label}: {CONFIG}: {requested}: needs an extra package; {used} is used instead"]

    def check(self, candidate: Checkpoint) -> list[str]:
        """Check a candidate's config. Returns at most one warning, which names the harmless differences.

        Raises:
            InputError: the candidate's model would compute something else.
        """
        if candidate.folder == self._base.folder:
            return []
        base, config, file = self._base, candidate.model_config, f"{candidate.label}: {candidate.folder / CONFIG}"
        try:
            differing = config_differences(config, candidate.config, base.model_config, base.config)
            unused = unused_keys(config, candidate.config, base.config)
        except Exception as error:  # keys may clash with attributes of the config class
            raise InputError(f"{file}: cannot be compared with the base's: {error}") from error
        differing = [difference for difference in differing if not _IGNORED_KEYS.fullmatch(difference.name)]
        if harmful := [difference for difference in differing if not self._is_harmless(difference, candidate)]:
            listed = ", and ".join(map(str, harmful[:_MAX_NAMES]))
            more = f" (and {len(harmful) - _MAX_NAMES} more)" if len(harmful) > _MAX_NAMES else ""
            raise InputError(
                f"{file}: {listed}{more}; blocks with these settings compute something else; only checkpoints of one"
                " architecture can be merged"
            )
        keys = dict.fromkeys([*(difference.shown for difference in differing if not difference.is_empty), *unused])
        names = ", ".join(key for key in keys if not _IGNORED_KEYS.fullmatch(key))
        return [f"{candidate.label}: {CONFIG}: keys that differ and change nothing here: {names}"] if names else []

    def check_untied_weights(self, checkpoint: Checkpoint, unread: Collection[str] = ()) -> None:
        """Check that a checkpoint holds its head, unless its config ties it or its head is in `unread`.

        Raises:
            InputError: it does not, and transformers would initialise the head at random.
        """
        tied: Any = getattr(type(self._model.model), "_tied_weights_keys", None) or {}
        for name in (self._model.shapes.keys() & set(tied)) - set(unread):
            if name not in checkpoint.tensors:
                key = "tie_word_embeddings"
                value = json.dumps(checkpoint.config[key]) if key in checkpoint.config else "absent, which is false"
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder / CONFIG}: {key} is {value}, and tensor {name} is not in"
                    f" the checkpoint{_headless(checkpoint)}; where {key} is true at the top level, it is the"
                    " embeddings"
                )

    def _is_harmless(self, difference: Difference, candidate: Checkpoint) -> bool:
        name, values = difference.name, (difference.value, difference.base_value)
        if name in _LEGACY_DEFAULTS:
            return all(value in ("absent", None, _LEGACY_DEFAULTS[name]) for value in values)
        if name in _LENGTH_KEYS:
            return not any(_has_rope_type(config, _LENGTH_ROPE_TYPES) for config in self._pair(candidate))
        if name == "pad_token_id":
            return self._ignores_padding_id or all(value in ("absent", None) for value in values)
        if name == "tie_word_embeddings":
            return not getattr(type(self._model.model), "_tied_weights_keys", None)
        if name == ROPE and (difference.contradicts or any(map(_has_rope_type, self._pair(candidate)))):
            return not difference.contradicts and not self._is_read(difference)
        is_unlimited = name == "sliding_window" and not any(map(_has_sliding_window, self._pair(candidate)))
        return is_unlimited or bool(_HARMLESS_KEYS.fullmatch(name)) or self._builds_the_same(difference, candidate)

    def _pair(self, candidate: Checkpoint) -> tuple[PreTrainedConfig, PreTrainedConfig]:
        return candidate.model_config, self._base.model_config

    def _is_read(self, difference: Difference) -> bool:
        """Whether the model's code reads the key."""
        reads = self._reads
        return reads is None or difference.attribute in reads.construction | reads.forward

    def _builds_the_same(self, difference: Difference, candidate: Checkpoint) -> bool:
        """Whether the model's code does not read the key, or only to build the same model from both values."""
        if not self._is_read(difference):
            return True
        in_forward = self._reads is None or difference.attribute in self._reads.forward
        return not in_forward and self._equals_base_with(difference.attribute, candidate)

    @cached_property
    def _reads(self) -> KeysRead | None:
        return keys_read_by_model(self._model.architecture.model_class, self._base.model_config)

    def _equals_base_with(self, attribute: str, candidate: Checkpoint) -> bool:
        """Whether the base's config with this one value of the candidate's builds the base's model."""
        changed: PreTrainedConfig = deepcopy(self._base.model_config)
        path, _, name = attribute.rpartition(".")
        try:
            configs = changed, candidate.model_config
            owner, theirs = map(attrgetter(path), configs) if path else configs
            if name in vars(theirs):
                setattr(owner, name, deepcopy(vars(theirs)[name]))
            else:
                del vars(owner)[name]
            model = empty_model(self._model.architecture.model_class, changed, self._model.dtype)
            return same_model(model, self._empty_base_model)
        except Exception:  # the model's code may fail on a value that does not fit the others
            return False

    @cached_property
    def _empty_base_model(self) -> torch.nn.Module:
        return empty_model(self._model.architecture.model_class, deepcopy(self._base.model_config), self._model.dtype)

    @cached_property
    def _ignores_padding_id(self) -> bool:
        """Whether nothing computed depends on the padding token's id. Text encoders read it in their stem."""
        if self._model.architecture.modality == "pixel_values":
            return True
        if not self._model.architecture.is_causal_lm:
            return False
        modules = {type(module) for module in self._model.model.modules()}
        owners = [*modules, *(sys.modules[module.__module__] for module in modules)]
        return not any(hasattr(owner, _PADDING_POSITIONS) for owner in owners)


def _has_sliding_window(config: PreTrainedConfig) -> bool:
    """Whether the attention window is shorter than the longest text."""
    window, longest = getattr(config, "sliding_window", None), getattr(config, "max_position_embeddings", None)
    return isinstance(window, int) and not (isinstance(longest, int) and window >= longest)


def _headless(checkpoint: Checkpoint) -> str:
    """Names the architecture in the config, if it is one without a head."""
    names = checkpoint.config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    return f", whose architecture is {name}" if name and not name.endswith(("ForCausalLM", "LMHeadModel")) else ""


def _has_rope_type(config: PreTrainedConfig, rope_types: Collection[str] | None = None) -> bool:
    """Whether rotary embeddings are of one of `rope_types`; without these, of any but the default."""
    tables: list[Any] = [getattr(config, ROPE, None)]
    if isinstance(tables[0], Mapping):
        tables += tables[0].values()
    types = [table.get("rope_type", "default") for table in tables if isinstance(table, Mapping)]
    return any(name != "default" if rope_types is None else name in rope_types for name in types)
