"""The transformers class of a config: the one that the file names, if it is one of transformers' own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from regstream.errors import InputError

#: Classes by model type of models with an encoder and a decoder.
_WITH_DECODER: tuple[Mapping[str, Any], ...] = (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)


def class_of_config(content: Mapping[str, Any], file: Path) -> str:
    """The class that `architectures` in a config names, or else the one that its `model_type` has for texts or images.

    Raises:
        InputError: transformers has no model of this type.
    """
    model_type = content.get("model_type")
    if model_type is None:
        raise InputError(f"{file}: has no model_type, which says what architecture it describes")
    if not isinstance(model_type, str):
        raise InputError(f"{file}: model_type is {model_type}, expected the name of an architecture")
    if model_type not in CONFIG_MAPPING:
        raise InputError(
            f'{file}: model_type "{model_type}" is not in transformers {transformers.__version__}, and code that comes'
            ' with a checkpoint is not run; where transformers has a class for it, [architecture] model_class = "…" in'
            " the manifest names it"
        )
    names = content.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if isinstance(name, str) and is_model_class(name) and _config_type(name) == model_type:
        return name
    is_encoder = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    has_decoder = content.get("is_encoder_decoder", getattr(CONFIG_MAPPING[model_type], "is_encoder_decoder", False))
    mappings: list[Mapping[str, Any]] = [
        *(_WITH_DECODER if has_decoder is True else ()),
        *([] if is_encoder else [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]),
        MODEL_MAPPING_NAMES,
    ]
    for mapping in mappings:
        found = mapping.get(model_type)
        if isinstance(found, str) and is_model_class(found):
            return found
    raise InputError(
        f'{file}: transformers {transformers.__version__} has no model class for model_type "{model_type}"'
    )


def is_model_class(name: str) -> bool:
    """Whether transformers has a model of this name."""
    found = getattr(transformers, name, None)
    return isinstance(found, type) and issubclass(found, PreTrainedModel)


def type_of_class(name: str) -> str:
    """The `model_type` of a class's configs.

    Raises:
        InputError: it has none.
    """
    model_type = _config_type(name)
    if model_type is None:
        raise InputError(
            f'[architecture] model_class: "{name}" is a class of many architectures, and the model_type in'
            " config.json is of none in transformers; name the class of one architecture"
        )
    return model_type


def predicts_targets(name: str) -> bool:
    """Whether a class predicts the next token of a target, in the decoder beside its encoder."""
    return any(name in mapping.values() for mapping in _WITH_DECODER)


def predicts_tokens(name: str) -> bool:
    """Whether a class predicts the next token of a text."""
    return name in {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()}


def is_language_model(name: str, model_type: str) -> bool:
    """Whether a class generates text, or is the body of one that does, such as an embedding model's."""
    generates = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return predicts_tokens(name) or (generates and name == MODEL_MAPPING_NAMES.get(model_type))


def _config_type(name: str) -> str | None:
    return getattr(getattr(getattr(transformers, name), "config_class", None), "model_type", None)
