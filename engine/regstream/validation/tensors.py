"""Every tensor of a checkpoint that is no parameter of the model: why a merge does without it, or why it may not."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES, TensorSpec
from regstream.errors import InputError
from regstream.models.layered_model import LayeredModel
from regstream.validation.grouping import grouped

#: Buffers that a model makes from its config, by how files of older versions call them, and the fewest dimensions:
#: a causal mask is called as a bias of attention would be, which has one.
_BUFFERS = (
    (re.compile(r"rotary\w*\.\w*inv_freq$|rotary\w*\.(cos|sin)_cached$"), 0),
    (re.compile(r"(^|\.)(position_ids|token_type_ids)$"), 0),
    (re.compile(r"\.(attn|attention)\.masked_bias$"), 0),
    (re.compile(r"\.(attn|attention)\.bias$"), 4),
)
#: How layers are called that predict further tokens beside the next one.
_PREDICTION = re.compile(r"(^|\.)(mtp|nextn)\w*\.")
#: What is left of an adapter in a checkpoint that it was never merged into.
_ADAPTED = re.compile(
    r"\.(lora_\w+|base_layer|modules_to_save|original_module|ia3_l|hada_w\d_[ab])(\.|$)|^base_model\."
)
#: What quantization keeps beside raw values, or in place of them, by its likeliest method.
_QUANTIZATION = {
    "GPTQ or AWQ": re.compile(r"\.(qweight|qzeros|scales|g_idx)$"),
    "bitsandbytes": re.compile(
        r"(^|\.)(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)$|\.quant_state\."
    ),
    "FP8": re.compile(r"\.(weight_(scale|scale_inv|scale_2|scales)|(input|output|activation)_scale|[kv]_scale)$"),
    "compressed-tensors": re.compile(r"\.weight_(packed|shape|zero_point|g_idx)$"),
    "MXFP4": re.compile(r"_proj_(blocks|scales)$"),
    "quanto or HQQ": re.compile(r"\.(W_q|weight\._data|weight\._scale)$"),
}
#: What a whole CLIP holds beside the tower that is merged.
_OF_CLIP = re.compile(r"(text|vision)_model\.|(text|visual)_projection\.|logit_scale$")
_BUFFER_REASON = "the model makes such buffers itself"
_RAW_PREDICTION = (
    "of layers that predict further tokens, and quantized; dequantize the checkpoint first, or remove them"
)
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Account:
    """What becomes of the tensors of a checkpoint that are no parameters of the model, by their names in its files."""

    label: str
    left_out: Mapping[str, tuple[str, ...]]  # by the reason
    prediction_layers: tuple[str, ...]  # that predict further tokens; of a base they go into the result

    def lines(self, *, of_base: bool) -> Iterator[str]:
        """What a person should know of it, a line a reason."""
        for reason, names in self.left_out.items():
            yield f"{self.label}: left out: {grouped(names)}: {reason}"
        if self.prediction_layers and of_base:
            yield (
                f"{self.label}: {grouped(self.prediction_layers)}: layers that predict further tokens, which are not"
                " merged; the result holds the base's"
            )
        elif self.prediction_layers:
            yield (
                f"{self.label}: left out: {grouped(self.prediction_layers)}: layers that predict further tokens are not"
                " merged; the result holds the base's, if any"
            )


def account(checkpoint: Checkpoint, model: LayeredModel) -> Account:
    """Go through every tensor of a checkpoint, which `refuse_unusable` has passed.

    Raises:
        InputError: the model has no place for one, and it is none that a merge can do without.
    """
    verdicts = _Verdicts(checkpoint, model)
    left_out: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    prediction: list[str] = []
    for name, spec in sorted(checkpoint.layout.items()):
        own = checkpoint.family.model_name(name)
        if own in model.shapes or own in model.tied:
            continue
        if verdicts.predicts(name, own):
            (prediction if spec.dtype in FLOAT_DTYPES else refused.setdefault(_RAW_PREDICTION, [])).append(name)
        elif reason := verdicts.excuse(name, own, spec):
            left_out.setdefault(reason, []).append(name)
        elif reason := verdicts.refusal(name, own):
            refused.setdefault(reason, []).append(name)
        else:
            reason = f"outside {type(model.model).__name__}: a task's head, or another model's part"
            left_out.setdefault(reason, []).append(name)
    _refuse(checkpoint, refused)
    kept = {reason: tuple(names) for reason, names in left_out.items()}
    return Account(label=checkpoint.label, left_out=kept, prediction_layers=tuple(prediction))


def refuse_unusable(checkpoint: Checkpoint, model: LayeredModel) -> None:
    """Refuse a checkpoint of quantized weights, or one that an adapter was never merged into.

    Raises:
        InputError: it is one.
    """
    verdicts = _Verdicts(checkpoint, model)
    refused: dict[str, list[str]] = {}
    for name, spec in sorted(checkpoint.layout.items()):
        if reason := verdicts.refusal_of_any(name, checkpoint.family.model_name(name), spec):
            refused.setdefault(reason, []).append(name)
    _refuse(checkpoint, refused)


def _refuse(checkpoint: Checkpoint, refused: Mapping[str, list[str]]) -> None:
    for reason, names in refused.items():
        raise InputError(f"{checkpoint.label}: {checkpoint.layout[names[0]].file}: {_listed(names)} {reason}")


class _Verdicts:
    """What is thought of a tensor by its name in the file, its name in the model, and its header entry."""

    def __init__(self, checkpoint: Checkpoint, model: LayeredModel) -> None:
        self._checkpoint, self._model, self._family = checkpoint, model, checkpoint.family
        self._method = _quantization_method(checkpoint)
        ignored = getattr(model.model, "_keys_to_ignore_on_load_unexpected", None) or ()
        self._ignored = [re.compile(pattern) for pattern in ignored]

    def refusal_of_any(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """Why a checkpoint with such a tensor is none that can be merged, whatever else there is."""
        if _ADAPTED.search(name):
            return (
                "of an adapter that was never merged into the checkpoint; merge it with peft (merge_and_unload), or"
                " name the plain model as `model` and the adapter's folder as `adapter`"
            )
        if self._family.has_parameter(own) and (method := self._quantized_with(name, own, spec)):
            return (
                f"of weights quantized with {self._method or method}; dequantize the checkpoint first: only"
                " floating-point weights of 16 bits or more can be merged"
            )
        return None

    def _quantized_with(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """By which method a tensor is quantized, or goes with what is."""
        if spec.dtype.is_floating_point and spec.dtype.itemsize == 1:
            return "FP8"
        if own in self._model.shapes:
            return None if spec.dtype in FLOAT_DTYPES else self._method
        return next((method for method, pattern in _QUANTIZATION.items() if pattern.search(name)), None)

    def predicts(self, name: str, own: str) -> bool:
        """Whether it is of a layer that predicts further tokens, behind the model's own or apart from them."""
        block, num_blocks = self._family.block_of(own), len(self._model.blocks)
        count = self._checkpoint.config.get("num_nextn_predict_layers")
        behind = block is not None and isinstance(count, int) and num_blocks <= block < num_blocks + count
        return behind or bool(_PREDICTION.search(name))

    def excuse(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """Why a merge does without a tensor that the model knows, and that is no parameter of it."""
        made = any(pattern.search(name) and len(spec.shape) >= fewest for pattern, fewest in _BUFFERS)
        if made or own in self._model.buffers:
            return _BUFFER_REASON
        if any(pattern.search(own) for pattern in self._ignored):
            return f"{type(self._model.model).__name__} ignores it"
        if self._family.nested_config and own == name and _OF_CLIP.match(name):
            return "another part of a whole CLIP"
        if own.startswith(tuple(f"{module}." for module in self._family.optional)):
            return "not every checkpoint has it; the result has the base's, if any"
        return None

    def refusal(self, name: str, own: str) -> str | None:
        """Why a tensor that the model does not know may not be left out."""
        block, num_blocks = self._family.block_of(own), len(self._model.blocks)
        if block is not None and block >= num_blocks:
            return f"not in the model that config.json describes, which has {num_blocks} layers"
        if self._family.has_parameter(own) or self._is_inside(name, own):
            return "not in the model that config.json describes: merged without it, the model would be another"
        if copied := self._copied(name):
            return (
                f"another copy of {copied}, or the same under a wrapper's name: save the checkpoint without the"
                " wrapper, and with one copy of its weights"
            )
        return None

    def _is_inside(self, name: str, own: str) -> bool:
        """Whether it is called as what the model's own body holds."""
        if self._family.body:
            return name.startswith(f"{self._family.body}.")
        return own != name and name.endswith(own)

    def _copied(self, name: str) -> str | None:
        parts = name.split(".")
        tails = (self._family.model_name(".".join(parts[begin:])) for begin in range(1, len(parts)))
        return next((tail for tail in tails if tail in self._model.shapes), None)


def _quantization_method(checkpoint: Checkpoint) -> str | None:
    for key in ("quantization_config", "compression_config"):
        found = checkpoint.config.get(key)
        if isinstance(found, Mapping):
            return str(found.get("quant_method", key))
    return None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    tensors = "tensors" if len(names) > 1 else "tensor"
    return f"{tensors} {', '.join(names[:_MOST_NAMED])}{more} {'are' if len(names) > 1 else 'is'}"
