"""Whether a candidate's config makes a model that computes what the base's does, whatever spelling it is in.

What differs once transformers has read both is harmless only if it is known to be, or if the model's own code does not
read it, or reads it and comes out as the same model.
"""

import json
import re
import sys
from collections.abc import Collection, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedConfig

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.errors import InputError
from regstream.models.config.config_file import CONFIG
from regstream.models.config.difference import ROPE, Difference, differences, unused_keys
from regstream.models.config.model_reads import ModelReads, model_reads
from regstream.models.config.remote_code import unused_implementations
from regstream.models.config.same_model import same_state
from regstream.models.empty_model import empty_model
from regstream.models.layered_model import LayeredModel

#: Where a config comes from, how it is stored and what is returned beside the output: of no account to anyone here.
_RECORDS = re.compile(
    r"transformers_version|name_or_path|architectures|dtype|torch_dtype|model_type|id2label|label2id|num_labels"
    r"|problem_type|return_dict|output_hidden_states|output_attentions|use_cache|gradient_checkpointing|torchscript"
    r"|use_return_dict|finetuning_task|task_specific_params|unsloth_.*|tokenizer_class"
)
#: What counts while a model is trained, by a task's head, or to a tokenizer; and what is held against tensors' shapes.
_HARMLESS = re.compile(
    r"(?!token_dropout).*dropout.*|.*pdrop|.*_drop|layerdrop|drop_path_rate|initializer_.*|init_std|summary_.*"
    r"|(bos|eos|sep|cls|unk|decoder_start|forced_bos|forced_eos)_token_id"
    r"|quantization_config|projection_dim|vocab_size|router_aux_loss_coef|output_router_logits|chunk_size_feed_forward|pretraining_tp"
)
#: Older versions of transformers computed by them, this one may not read them.
_ALWAYS_COMPUTING = {"position_embedding_type": "absolute", "per_layer_config": None}
#: Rotary embeddings for which the longest position counts, and what counts of the others.
_SCALED_BY_LENGTH = ("dynamic", "longrope", "yarn", "su")
_LENGTHS = ("max_position_embeddings", "n_positions")
#: The function by which models of RoBERTa's kind number positions from the padding's token id.
_POSITIONS_BY_PADDING = "create_position_ids_from_input_ids"
_MOST_NAMED = 4


class ConfigComparison:
    """Holds candidates' configs against the base's; `model` is the base's."""

    def __init__(self, base: Checkpoint, model: LayeredModel) -> None:
        self._base = base
        self._model = model

    def base_notes(self) -> list[str]:
        """What a person should know of the base's config, in at most one line."""
        asked = ", ".join(unused_implementations(self._base.config))
        used = getattr(self._model.model.config, "_attn_implementation", None)
        return [f"{self._base.label}: {CONFIG}: {asked}: takes a package of its own; {used} is used"] if asked else []

    def check(self, candidate: Checkpoint) -> list[str]:
        """Check a candidate's config. Returns what a person should know of it, in at most one line.

        Raises:
            InputError: blocks, or what is around them, would compute something else.
        """
        if candidate.folder == self._base.folder:
            return []
        found, unused = self._differences(candidate)
        computing = [difference for difference in found if not self._is_harmless(difference, candidate)]
        if computing:
            listed = ", and ".join(map(str, computing[:_MOST_NAMED]))
            more = f" (and {len(computing) - _MOST_NAMED} more)" if len(computing) > _MOST_NAMED else ""
            raise InputError(
                f"{candidate.label}: {candidate.folder / CONFIG}: {listed}{more}; its blocks would compute something"
                " else, and only checkpoints of one architecture can be merged"
            )
        names = dict.fromkeys([*(difference.shown for difference in found if not difference.is_empty), *unused])
        named = ", ".join(name for name in names if not _RECORDS.fullmatch(name))
        return [f"{candidate.label}: {CONFIG}: keys that differ and change nothing here: {named}"] if named else []

    def _differences(self, candidate: Checkpoint) -> tuple[list[Difference], list[str]]:
        base, config = self._base, candidate.model_config
        try:
            found = differences(config, candidate.config, base.model_config, base.config)
            unused = unused_keys(config, candidate.config, base.config)
        except Exception as error:  # whatever comes of keys that stand in the way of the class's own
            raise InputError(
                f"{candidate.label}: {candidate.folder / CONFIG}: no config to compare: {error}"
            ) from error
        return [difference for difference in found if not _RECORDS.fullmatch(difference.name)], unused

    def check_ties(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint without a tensor that its config says is one of its own.

        Raises:
            InputError: transformers would start it at random.
        """
        tied: Any = getattr(type(self._model.model), "_tied_weights_keys", None) or {}
        for name in self._model.shapes.keys() & set(tied):
            if name not in checkpoint.tensors:
                key = "tie_word_embeddings"
                spelled = (
                    json.dumps(checkpoint.config.get(key)) if key in checkpoint.config else "absent, which is false"
                )
                raise InputError(
                    f"{checkpoint.label}: {checkpoint.folder / CONFIG}: {key} is {spelled}, and tensor {name} is not in"
                    f" the checkpoint{_described(checkpoint)}; where {key} is true at the top level, it is the"
                    " embeddings"
                )

    def _is_harmless(self, difference: Difference, candidate: Checkpoint) -> bool:
        name, values = difference.name, (difference.value, difference.base_value)
        if name in _ALWAYS_COMPUTING:
            return all(value in ("absent", None, _ALWAYS_COMPUTING[name]) for value in values)
        if name in _LENGTHS:
            return not any(_is_scaled(config, _SCALED_BY_LENGTH) for config in self._pair(candidate))
        if name == "pad_token_id":
            return self._pads_with_any_token or all(value in ("absent", None) for value in values)
        if name == "tie_word_embeddings":
            return not getattr(type(self._model.model), "_tied_weights_keys", None)
        if name == ROPE and (difference.contradicts or any(map(_is_scaled, self._pair(candidate)))):
            return not difference.contradicts and not self._is_read(difference)
        is_unused = name == "sliding_window" and not any(map(_cuts_attention, self._pair(candidate)))
        return is_unused or bool(_HARMLESS.fullmatch(name)) or self._is_unread(difference, candidate)

    def _pair(self, candidate: Checkpoint) -> tuple[PreTrainedConfig, PreTrainedConfig]:
        return candidate.model_config, self._base.model_config

    def _is_read(self, difference: Difference) -> bool:
        """Whether the model's code looks at a key."""
        reads = self._reads
        return reads is None or difference.attribute in reads.building | reads.passing

    def _is_unread(self, difference: Difference, candidate: Checkpoint) -> bool:
        """Whether the model's code does not look at a key, or makes the same model of both values."""
        if not self._is_read(difference):
            return True
        reads = self._reads
        is_passing = reads is None or difference.attribute in reads.passing
        return not is_passing and self._makes_the_same(difference.attribute, candidate)

    @cached_property
    def _reads(self) -> ModelReads | None:
        return model_reads(self._model.family, self._base.model_config, self._model.dtype)

    def _makes_the_same(self, attribute: str, candidate: Checkpoint) -> bool:
        """Whether the base's model with this one value of the candidate's is the base's model."""
        changed: PreTrainedConfig = deepcopy(self._base.model_config)
        path, _, name = attribute.rpartition(".")
        try:
            owner, theirs = (_sub_config(config, path) for config in (changed, candidate.model_config))
            if name in vars(theirs):
                setattr(owner, name, deepcopy(vars(theirs)[name]))
            else:
                del vars(owner)[name]
            model = empty_model(self._model.family, changed, self._model.dtype)
            return same_state(model, self._own_empty)
        except Exception:  # whatever its code makes of a value that does not go with the rest
            return False

    @cached_property
    def _own_empty(self) -> torch.nn.Module:
        return empty_model(self._model.family, deepcopy(self._base.model_config), self._model.dtype)

    @cached_property
    def _pads_with_any_token(self) -> bool:
        """Whether nothing depends on which token id pads: not so in encoders of text, whose stems it is in."""
        if self._model.family.rows == "pixel_values":
            return True
        if not self._model.family.continues_text:
            return False
        modules = {type(module) for module in self._model.model.modules()}
        places = [*modules, *(sys.modules[module.__module__] for module in modules)]
        return not any(hasattr(place, _POSITIONS_BY_PADDING) for place in places)


def _cuts_attention(config: PreTrainedConfig) -> bool:
    """Whether a window of attention is shorter than the longest text."""
    window, longest = getattr(config, "sliding_window", None), getattr(config, "max_position_embeddings", None)
    return isinstance(window, int) and not (isinstance(longest, int) and window >= longest)


def _described(checkpoint: Checkpoint) -> str:
    """What a checkpoint without a head is, where its config tells."""
    found = checkpoint.config.get("architectures")
    named = found[0] if isinstance(found, list) and found and isinstance(found[0], str) else ""
    return f", whose architecture is {named}" if named and not named.endswith(("ForCausalLM", "LMHeadModel")) else ""


def _sub_config(config: PreTrainedConfig, path: str) -> Any:
    for name in filter(None, path.split(".")):
        config = getattr(config, name)
    return config


def _is_scaled(config: PreTrainedConfig, rope_types: Collection[str] | None = None) -> bool:
    """Whether rotary embeddings are of other types than the default, or of some that are named."""
    tables: list[Any] = [getattr(config, ROPE, None)]
    if isinstance(tables[0], Mapping):
        tables += tables[0].values()
    found = [table.get("rope_type", "default") for table in tables if isinstance(table, Mapping)]
    return any(kind != "default" if rope_types is None else kind in rope_types for kind in found)
