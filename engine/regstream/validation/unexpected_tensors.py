"""Tensors of a checkpoint that are no parameters of the model: ignored with a reason, or refused with one."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from regstream.checkpoint.checkpoint import Checkpoint
from regstream.checkpoint.header import FLOAT_DTYPES, TensorSpec
from regstream.errors import InputError
from regstream.models.layered_model import LayeredModel
from regstream.units import format_names
from regstream.validation.buffers import equals_made
from regstream.validation.summaries import common_parts, summarize_names

#: Names of buffers that models compute from the config and older files store, and their fewest dimensions: a causal
#: mask has the name of an attention bias, which has one dimension.
_BUFFERS = (
    (re.compile(r"rotary\w*\.\w*inv_freq$|rotary\w*\.(cos|sin)_cached$"), 0),
    (re.compile(r"(^|\.)(position_ids|token_type_ids)$"), 0),
    (re.compile(r"\.num_batches_tracked$"), 0),
    (re.compile(r"\.(attn|attention)\.masked_bias$"), 0),
    (re.compile(r"\.(attn|attention)\.bias$"), 4),
)
#: Layers for multi-token prediction.
_PREDICTION = re.compile(r"(^|\.)(mtp|nextn)\w*\.")
#: Tensors of an adapter in a checkpoint that it was never merged into.
_UNMERGED_ADAPTER = re.compile(
    r"\.(lora_\w+|base_layer|modules_to_save|original_module|ia3_l|hada_w\d_[ab])(\.|$)|^base_model\."
)
#: Tensors that quantization methods store beside quantized values or instead of weights.
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
#: How transformers dequantizes a checkpoint when it loads it, or after that, by what the method's name holds.
_DEQUANTIZE = {
    "mxfp4": "quantization_config=Mxfp4Config(dequantize=True)",
    "fp8": "quantization_config=FineGrainedFP8Config(dequantize=True)",
    "bitsandbytes": "model.dequantize()",
    "compressed-tensors": "quantization_config=CompressedTensorsConfig(run_compressed=False)",
}
#: The other tensors of a whole CLIP, of which one tower is merged.
_CLIP_REST = re.compile(r"(text|vision)_model\.|(text|visual)_projection\.|logit_scale$")
_BUFFER_REASON = "the model makes such buffers itself"
_QUANTIZED_PREDICTION = (
    "of layers that predict further tokens, and quantized; dequantize the checkpoint first, or remove them"
)
_MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class UnexpectedTensors:
    """Tensors of a checkpoint that are no parameters of the model and may be ignored, by their names in its files."""

    label: str
    ignored: Mapping[str, tuple[str, ...]]  # by reason
    prediction_layers: tuple[str, ...]  # for multi-token prediction; the base's go into the result

    def warnings(self, *, of_base: bool) -> Iterator[str]:
        """Yield one line for each reason; `of_base`: the checkpoint is the base."""
        for reason, names in self.ignored.items():
            yield f"{self.label}: left out: {summarize_names(names)}: {reason}"
        layers = f"{_summarize_layers(self.prediction_layers)}: layers that predict further tokens"
        if self.prediction_layers and of_base:
            yield f"{self.label}: {layers}, which are not merged; the result holds the base's"
        elif self.prediction_layers:
            yield f"{self.label}: left out: {layers} are not merged; the result holds the base's, if any"


def classify_unexpected(checkpoint: Checkpoint, model: LayeredModel) -> UnexpectedTensors:
    """Classify every tensor that is no parameter of the model. Call `refuse_unusable` first.

    Raises:
        InputError: a merge without such a tensor would be wrong.
    """
    rules = _Rules(checkpoint, model)
    ignored, refused = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    prediction_layers: list[str] = []
    for name, spec in sorted(checkpoint.tensor_index.items()):
        own = checkpoint.architecture.model_name(name)
        if own in model.shapes or own in model.tied:
            continue
        if rules.is_prediction_layer(name, own):
            names = prediction_layers if spec.dtype in FLOAT_DTYPES else refused[_QUANTIZED_PREDICTION]
        elif reason := rules.reason_to_ignore(name, own, spec):
            names = ignored[reason]
        elif reason := rules.reason_to_refuse(name, own):
            names = refused[reason]
        else:
            names = ignored[f"outside {type(model.model).__name__}: a task head, or part of another model"]
        names.append(name)
    _refuse(checkpoint, refused)
    return UnexpectedTensors(
        label=checkpoint.label,
        ignored={reason: tuple(names) for reason, names in ignored.items()},
        prediction_layers=tuple(prediction_layers),
    )


def refuse_unusable(checkpoint: Checkpoint, model: LayeredModel) -> None:
    """Check that a checkpoint holds neither quantized weights nor an adapter that was never merged into it.

    Raises:
        InputError: it holds one of them.
    """
    rules = _Rules(checkpoint, model)
    refused = defaultdict[str, list[str]](list)
    for name, spec in sorted(checkpoint.tensor_index.items()):
        if reason := rules.unusable(name, checkpoint.architecture.model_name(name), spec):
            refused[reason].append(name)
    _refuse(checkpoint, refused)


def _summarize_layers(names: Sequence[str]) -> str:
    """As `summarize_names`, but with the number of the layer that all are in, if they are: others are merged."""
    common = common_parts([name.split(".") for name in names])
    return f"{common}.* ({len(names):,} tensors)" if common and len(names) > _MAX_NAMES else summarize_names(names)


def _refuse(checkpoint: Checkpoint, refused: Mapping[str, list[str]]) -> None:
    for reason, names in refused.items():
        listed = format_names(names, _MAX_NAMES)
        subject = f"tensors {listed} are" if len(names) > 1 else f"tensor {listed} is"
        raise InputError(f"{checkpoint.label}: {checkpoint.tensor_index[names[0]].file}: {subject} {reason}")


class _Rules:
    """What a tensor is, by its name in the file (`name`), its name in the model (`own`) and its header entry."""

    def __init__(self, checkpoint: Checkpoint, model: LayeredModel) -> None:
        self._checkpoint, self._model, self._architecture = checkpoint, model, checkpoint.architecture
        self._configured_method = _quantization_method(checkpoint)
        ignored = getattr(model.model, "_keys_to_ignore_on_load_unexpected", None) or ()
        self._ignored = [re.compile(pattern) for pattern in ignored]

    def unusable(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """Why no checkpoint with such a tensor can be merged."""
        if _UNMERGED_ADAPTER.search(name):
            return (
                "of an adapter that was never merged into the checkpoint; merge it with peft (merge_and_unload), or"
                " name the plain model as `model` and the adapter's folder as `adapter`"
            )
        if self._architecture.has_parameter(own) and (method := self._quantization(name, own, spec)):
            return (
                f"of weights quantized with {self._configured_method or method}; dequantize the checkpoint first"
                f"{_way_to_dequantize(self._configured_method or method)}: only floating-point weights of 16 bits or"
                " more can be merged"
            )
        return None

    def _quantization(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """The method by which a tensor is quantized, or to whose tensors it belongs."""
        if spec.dtype.is_floating_point and spec.dtype.itemsize == 1:
            return "FP8"
        if own in self._model.shapes:
            return None if spec.dtype in FLOAT_DTYPES else self._configured_method
        return next((method for method, pattern in _QUANTIZATION.items() if pattern.search(name)), None)

    def is_prediction_layer(self, name: str, own: str) -> bool:
        """Whether a tensor is of a layer for multi-token prediction: after the model's last block, or named so."""
        block, num_blocks = self._architecture.block_of(own), len(self._model.blocks)
        count = self._checkpoint.config.get("num_nextn_predict_layers")
        is_after_last = block is not None and isinstance(count, int) and num_blocks <= block < num_blocks + count
        return is_after_last or bool(_PREDICTION.search(name))

    def reason_to_ignore(self, name: str, own: str, spec: TensorSpec) -> str | None:
        """Why a merge can go without a tensor that is no parameter but known."""
        is_buffer = any(pattern.search(name) and len(spec.shape) >= fewest for pattern, fewest in _BUFFERS)
        is_made = own in self._model.buffers or own in self._model.stored_buffers
        if is_buffer or is_made or (own in self._model.integer_buffers and equals_made(spec, own, self._model)):
            return _BUFFER_REASON
        if any(pattern.search(own) for pattern in self._ignored):
            return f"{type(self._model.model).__name__} ignores it"
        if self._architecture.nested is not None and own == name and _CLIP_REST.match(name):
            return "another part of a whole CLIP"
        if own.startswith(tuple(f"{module}." for module in self._architecture.optional)):
            return "not every checkpoint has it; the result has the base's, if any"
        return None

    def reason_to_refuse(self, name: str, own: str) -> str | None:
        """Why an unknown tensor must not be ignored."""
        block, num_blocks = self._architecture.block_of(own), len(self._model.blocks)
        if own in self._model.integer_buffers:
            return (
                "of whole numbers, and not as the model makes it from config.json; results hold floating-point tensors"
                " alone, so that this one would be lost"
            )
        if block is not None and block >= num_blocks:
            return f"not in the model that config.json describes, which has {num_blocks} layers"
        if self._architecture.has_parameter(own) or self._is_inside(name, own):
            return "not in the model that config.json describes: merged without it, the model would be another"
        if copied := self._copied_parameter(name):
            return (
                f"another copy of {copied}, or the same under a wrapper's name: save the checkpoint without the"
                " wrapper, and with one copy of its weights"
            )
        return None

    def _is_inside(self, name: str, own: str) -> bool:
        """Whether a tensor is named like those inside the model's body."""
        if body := self._architecture.call.body:
            return name.startswith(f"{body}.")
        return own != name and name.endswith(own)

    def _copied_parameter(self, name: str) -> str | None:
        """The parameter whose name is left when leading parts of the tensor's name are removed."""
        parts = name.split(".")
        tails = (self._architecture.model_name(".".join(parts[begin:])) for begin in range(1, len(parts)))
        return next((tail for tail in tails if tail in self._model.shapes), None)


def _way_to_dequantize(method: str) -> str:
    option = next((option for name, option in _DEQUANTIZE.items() if name in method.lower()), None)
    return "" if option is None else f" (load it with transformers and {option}, and save it in bfloat16)"


def _quantization_method(checkpoint: Checkpoint) -> str | None:
    tables = ((key, checkpoint.config.get(key)) for key in ("quantization_config", "compression_config"))
    return next((str(table.get("quant_method", key)) for key, table in tables if isinstance(table, Mapping)), None)
