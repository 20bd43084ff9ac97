"""The config of a PEFT LoRA adapter: by what its products are scaled, and which kinds of adapter are not applied.

The keys are those of peft's `LoraConfig` (https://github.com/huggingface/peft, `tuners/lora/config.py`).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from regstream.errors import InputError
from regstream.manifest.bounded_regex import check_regex, starts_with
from regstream.models.config.config_file import ADAPTER_CONFIG, CONFIG
from regstream.storage.json_file import read_object

#: Keys that matter to whoever trains or loads, and not to what a merged weight is. peft goes by a module's own kind,
#: whatever `fan_in_fan_out` says, and reads the configs of initialisations only where `init_lora_weights` names them.
_WITHOUT_EFFECT = frozenset({
    "auto_mapping", "revision", "inference_mode", "peft_version", "lora_dropout", "layers_pattern",
    "fan_in_fan_out", "megatron_core", "runtime_config", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "ensure_weight_tying",
})  # fmt: skip
#: Initialisations that leave the model's own weights alone. After others the adapter is on weights that are nowhere.
_HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")
#: What peft tunes whole for a task, whether or not an older version wrote it into `modules_to_save`.
_HEADS_OF_TASKS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
#: What whoever trains adds, and peft passes over.
_OF_TRAINERS = "unsloth_"
#: As peft's `get_pattern_key` has it: the end of a module's name, from its start or from a dot on.
_MODULE = r"(.*\.)?({})$"
_ADVICE = "merge the adapter into its model with peft first"
_Value = TypeVar("_Value")


def _check_patterns(patterns: dict[str, _Value]) -> dict[str, _Value]:
    for pattern in patterns:
        check_regex(pattern, within=_MODULE)
    return patterns


def _none_is_empty(value: object) -> object:
    return {} if value is None else value


_Rank = Annotated[int, Field(gt=0)]
_Patterns = Annotated[dict[str, _Value], BeforeValidator(_none_is_empty), AfterValidator(_check_patterns)]


class AdapterConfig(BaseModel):
    """What is read of an adapter's config; whatever else is set there is refused or has no effect."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)

    r: _Rank
    lora_alpha: float
    rank_pattern: _Patterns[_Rank] = {}
    alpha_pattern: _Patterns[float] = {}
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    modules_to_save: list[str] | None = None
    task_type: Any = None
    base_model_name_or_path: str | None = None
    # Of what training was to change, which says what should be there; of any type, since nothing is computed by it.
    target_modules: Any = None
    exclude_modules: Any = None
    layers_to_transform: Any = None

    def rank(self, module: str) -> int:
        """The rank of a module's factors, by its name in the model that was tuned."""
        return _matched(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """What a module's product is multiplied by: α / r, or α / √r of rank-stabilised LoRA (arXiv:2312.03732)."""
        alpha, rank = _matched(self.alpha_pattern, module, self.lora_alpha), self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saves(self, parameter: str) -> bool:
        """Whether a parameter is of a module that was tuned whole; peft takes the ends of module names."""
        modules = parameter.split(".")[:-1]
        names = (".".join(modules[:end]) for end in range(1, len(modules) + 1))
        saved = (*(self.modules_to_save or ()), *_HEADS_OF_TASKS.get(str(self.task_type), ()))
        return any(name.endswith(saved) for name in names)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The config of an adapter's folder.

    Raises:
        InputError: there is none, it is damaged, or the adapter is of a kind that is not applied.
    """
    file = folder / ADAPTER_CONFIG
    if not file.exists() and (folder / CONFIG).exists():
        raise InputError(
            f"{folder}: holds {CONFIG} and no {ADAPTER_CONFIG}: it is a whole model, no adapter; name it as `model`;"
            " expected the folder of a PEFT adapter"
        )
    raw = read_object(file, "the folder of a PEFT adapter")
    _refuse_other_kinds(file, raw)
    try:
        return AdapterConfig.model_validate({key: value for key, value in raw.items() if key not in _WITHOUT_EFFECT})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: {place}: {first['msg']}, found {_shown(first['input'])}") from error


def _refuse_other_kinds(file: Path, raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise InputError(
            f"{file}: peft_type is {_shown(raw.get('peft_type'))}; only LORA adapters are applied; {_ADVICE}"
        )
    start = raw.get("init_lora_weights", True)
    if (start.lower() if isinstance(start, str) else start) not in _HARMLESS_STARTS:
        raise InputError(
            f"{file}: init_lora_weights is {_shown(raw['init_lora_weights'])}, which changes the model's own weights"
            f" too, or how the factors are applied; {_ADVICE}"
        )
    if raw.get("bias", "none") != "none":
        raise InputError(f"{file}: bias is {_shown(raw['bias'])}; tuned biases are not applied; {_ADVICE}")
    known = _WITHOUT_EFFECT | AdapterConfig.model_fields.keys() | {"peft_type", "init_lora_weights"}
    for key in sorted(raw.keys() - known):
        if raw[key] and not key.startswith(_OF_TRAINERS):  # what peft does not use it writes as null, false or empty
            raise InputError(f"{file}: {key} is {_shown(raw[key])}, which is not applied; {_ADVICE}")


def _matched(patterns: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    """The value of the first pattern that matches."""
    return next((value for pattern, value in patterns.items() if starts_with(_MODULE.format(pattern), module)), default)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
