"""A few rows to run a model on."""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from regstream.errors import InputError
from regstream.models.batch import Batch
from regstream.models.config.image_sizes import image_shape
from regstream.models.config.model_sizes import spectrum_shape, vocab_size
from regstream.models.derivation.block_list import lacks_decoder

#: Tokens of two rows. Neither divides a width or a number of heads, so that no other axis has their length.
LENGTHS = (17, 11)
#: The same of their targets.
TARGET_LENGTHS = (13, 7)
DECODER_INPUT_IDS = "decoder_input_ids"
#: Samples of a sound: wav2vec2 makes one token of 320, after the first 400.
_NUM_SAMPLES = 400 + 16 * 320
#: The height and width of images of a model that takes any.
_ANY_SIZE = 64


def example_row(model: PreTrainedModel) -> dict[str, Tensor]:
    """One row of what a model reads: token ids, an image or a sound.

    Raises:
        InputError: it reads something else.
    """
    names = [model.main_input_name]
    if model.config.is_encoder_decoder and not lacks_decoder(model):
        names.append(DECODER_INPUT_IDS)
    if _has_two_towers(model):
        names.append("pixel_values")
    required = [
        parameter.name
        for parameter in signature(model.forward).parameters.values()
        if parameter.default is Parameter.empty and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
    ]
    inputs = {name: _example(model, name) for name in dict.fromkeys([*names, *required])}
    if unknown := [name for name, value in inputs.items() if value is None]:
        raise InputError(
            f"{type(model).__name__} reads {', '.join(unknown)}; only models that read token ids, sounds, or images or"
            " spectra of one size, and nothing else, can be merged"
        )
    return {name: value for name, value in inputs.items() if value is not None}


def token_batch(model: PreTrainedModel, lengths: tuple[int, ...]) -> Batch:
    """Rows of ordinary token ids. Rows of one length are the same."""
    special, size = _special_ids(model.config), vocab_size(model.config)
    ordinary = [index for index in range(min(size, 4 * max(LENGTHS))) if index not in special] or [0]
    rows = [[ordinary[(length + index) % len(ordinary)] for index in range(length)] for length in lengths]
    return Batch(lengths, token_ids=[torch.tensor(row, dtype=torch.int32).numpy() for row in rows])


def short_row(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A shorter row of a model whose rows have targets: both are cut where they are token ids."""
    lengths = {"input_ids": LENGTHS[1], DECODER_INPUT_IDS: TARGET_LENGTHS[1]}
    return {name: value[:, : lengths[name]] if name in lengths else value for name, value in row.items()}


def batch_inputs(batch: Batch) -> dict[str, Tensor]:
    """The arguments of a model's forward for a batch of token ids."""
    device = torch.device("cpu")
    mask = batch.attention_mask(device)
    return {"input_ids": batch.input_ids(device)} | ({} if mask is None else {"attention_mask": mask})


def _example(model: PreTrainedModel, name: str) -> Tensor | None:
    """A value of an argument of a model's forward; None of an unknown one."""
    config: Any = model.config
    match name:
        case "input_ids":
            return token_batch(model, LENGTHS[:1]).input_ids(torch.device("cpu"))
        case "decoder_input_ids":
            return token_batch(model, TARGET_LENGTHS[:1]).input_ids(torch.device("cpu"))
        case "pixel_values":
            return _random(1, *_image_shape(config))
        case "input_values":
            return _random(1, _NUM_SAMPLES)
        case "input_features" if (shape := spectrum_shape(config)) is not None:
            return _random(1, *shape)
    return None


def _has_two_towers(model: PreTrainedModel) -> bool:
    """Whether a model compares texts with images, as CLIP does, and needs both."""
    return hasattr(model, "get_text_features") and hasattr(model, "get_image_features")


def _image_shape(config: Any) -> tuple[int, int, int]:
    try:
        return image_shape(config)
    except InputError:
        return (int(getattr(config, "num_channels", 3)), _ANY_SIZE, _ANY_SIZE)


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _special_ids(config: PreTrainedConfig) -> set[int]:
    """The ids that a config names: of padding, and of the places of images."""
    ids: set[int] = set()
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            ids |= _special_ids(value)
        elif key.endswith(("token_id", "token_index")):
            ids |= {entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, int)}
    return ids
