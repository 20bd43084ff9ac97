"""The config of a PEFT LoRA adapter: its ranks and scales, and a refusal of unsupported kinds of adapter.

The keys are those of peft's `LoraConfig` (https://github.com/huggingface/peft, `tuners/lora/config.py`).
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from regstream.errors import InputError
from regstream.manifest.bounded_regex import check_regex, starts_with
from regstream.models.config.config_file import ADAPTER_CONFIG, CONFIG
from regstream.storage.json_file import read_json_object

#: Keys that affect training or loading, but not a merged weight. peft ignores `fan_in_fan_out` where a module's type
#: tells, and reads the configs of initialisations only where `init_lora_weights` names them.
_WITHOUT_EFFECT = frozenset({
    "auto_mapping", "revision", "inference_mode", "peft_version", "lora_dropout", "layers_pattern",
    "fan_in_fan_out", "megatron_core", "runtime_config", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "ensure_weight_tying",
})  # fmt: skip
#: Initialisations that leave the model's own weights as they are. After others the adapter needs weights that no
#: checkpoint has.
_SUPPORTED_INITS = (True, False, "gaussian", "eva", "orthogonal")
#: Modules that peft tunes whole for a task; older versions do not list them in `modules_to_save`.
_TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
#: Keys of trainers, which peft ignores.
_TRAINER_PREFIX = "unsloth_"
#: As in peft's `get_pattern_key`: matches the end of a module's name, from its start or after a dot.
_MODULE = r"(.*\.)?({})$"
_Value = TypeVar("_Value")


def _check_patterns(patterns: dict[str, _Value]) -> dict[str, _Value]:
    for pattern in patterns:
        check_regex(pattern, within=_MODULE)
    return patterns


_Rank = Annotated[int, Field(gt=0)]
_NoneIsEmpty = BeforeValidator(lambda value: {} if value is None else value)
_Patterns = Annotated[dict[str, _Value], _NoneIsEmpty, AfterValidator(_check_patterns)]


class AdapterConfig(BaseModel):
    """The keys of an adapter's config that affect a merged weight; any other key is refused or has no effect."""

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
    # Which modules training changed, for a comparison with the tensors. Of any type: nothing is computed from them.
    target_modules: Any = None
    exclude_modules: Any = None
    layers_to_transform: Any = None

    def rank(self, module: str) -> int:
        """The rank of a module's factors; `module` is its name in the model that was tuned."""
        return _match(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """The factor of a module's delta: α / r, or α / √r for rank-stabilised LoRA (arXiv:2312.03732)."""
        alpha, rank = _match(self.alpha_pattern, module, self.lora_alpha), self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saves(self, parameter: str) -> bool:
        """Whether a parameter belongs to a module that was tuned whole; like peft, matches the ends of module names."""
        modules = parameter.split(".")[:-1]
        names = (".".join(modules[:end]) for end in range(1, len(modules) + 1))
        saved = (*(self.modules_to_save or ()), *_TASK_HEADS.get(str(self.task_type), ()))
        return any(name.endswith(saved) for name in names)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The config of an adapter's folder.

    Raises:
        InputError: it is missing or damaged, or the adapter is of an unsupported kind.
    """
    file = folder / ADAPTER_CONFIG
    if not file.exists() and (folder / CONFIG).exists():
        raise InputError(
            f"{folder}: holds {CONFIG} and no {ADAPTER_CONFIG}: it is a whole model, no adapter; write"
            f' model = "{folder}" in place of adapter'
        )
    raw = read_json_object(file, "the folder of a PEFT adapter")
    for problem in _unsupported(raw):
        raise InputError(f"{file}: {problem}; merge the adapter into its model with peft first")
    try:
        return AdapterConfig.model_validate({key: value for key, value in raw.items() if key not in _WITHOUT_EFFECT})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: {place}: {first['msg']}, found {_shorten(first['input'])}") from error


def _unsupported(raw: Mapping[str, Any]) -> Iterator[str]:
    if raw.get("peft_type") != "LORA":
        yield f"peft_type is {_shorten(raw.get('peft_type'))}; only LORA adapters are applied"
    init = raw.get("init_lora_weights", True)
    if (init.lower() if isinstance(init, str) else init) not in _SUPPORTED_INITS:
        effect = "changes the model's own weights too, or how the factors are applied"
        yield f"init_lora_weights is {_shorten(init)}, which {effect}"
    if raw.get("bias", "none") != "none":
        yield f"bias is {_shorten(raw['bias'])}; tuned biases are not applied"
    known = _WITHOUT_EFFECT | AdapterConfig.model_fields.keys() | {"peft_type", "init_lora_weights"}
    for key in sorted(raw.keys() - known):
        if raw[key] and not key.startswith(_TRAINER_PREFIX):  # peft writes unused keys as null, false or empty
            yield f"{key} is {_shorten(raw[key])}, which is not applied"


def _match(patterns: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    return next((value for pattern, value in patterns.items() if starts_with(_MODULE.format(pattern), module)), default)


def _shorten(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
