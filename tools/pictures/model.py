"""The small CLIP that everything is tuned from, what it reads, and the heads that its text tower gives.

Shape suffixes: B pictures, C classes, P projected features, L words.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from pictures.canvas import SIZE
from pictures.files import read
from pictures.tasks import TASKS

TEMPLATES = ("a picture of {}", "a small drawing of {}", "here is {}", "{} on some ground")
#: Of fused attention torch's backward pass on the CPU took three quarters of a step.
TRAINED_WITH = "eager"
_PROJECTED = 96
_MOVED = 3  # pixels
_LONGEST = 20  # words of a caption with its two ends
_MEAN = 0.5  # and deviation, of every channel


def new_model() -> CLIPModel:
    """Untrained: 32 x 32 pixels in patches of 8, nine blocks of width 192, a text tower of two blocks."""
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 9,
        "num_attention_heads": 6,
        "image_size": SIZE,
        "patch_size": 8,
        "projection_dim": _PROJECTED,
    }
    words = len(new_tokenizer())
    text = {
        "vocab_size": words,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": _LONGEST,
        "projection_dim": _PROJECTED,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 0,
    }
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=_PROJECTED)
    make: Any = CLIPModel._from_config  # it has no types
    model: CLIPModel = make(config, attn_implementation=TRAINED_WITH)
    return model


def new_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token; the vocabulary is that of the captions."""
    captions = [caption(name, template) for task in TASKS.values() for name in task.classes for template in TEMPLATES]
    words = ["<pad>", *sorted({word for text in captions for word in text.split()}), "<start>", "<end>"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(word, ids[word]) for word in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    constructor: Any = PreTrainedTokenizerFast  # it has no types
    wrapped: PreTrainedTokenizerFast = constructor(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<pad>", model_max_length=_LONGEST
    )
    return wrapped


def image_processor() -> CLIPImageProcessorPil:
    """What prepares a picture: nothing but its values' range, as pictures have the right size."""
    sides = {"height": SIZE, "width": SIZE}
    constructor: Any = CLIPImageProcessorPil
    processor: CLIPImageProcessorPil = constructor(
        do_resize=False,
        do_center_crop=False,
        size=sides,
        crop_size=sides,
        image_mean=[_MEAN] * 3,
        image_std=[_MEAN] * 3,
    )
    return processor


def caption(name: str, template: str) -> str:
    """What is said of a picture of a class."""
    return template.format(name)


def text_features(model: Any, tokenizer: Any, captions: Iterable[str]) -> Tensor:
    """The text tower's projection of captions, of length 1, (C, P)."""
    tokens = tokenizer(list(captions), padding=True, return_tensors="pt")
    pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
    return normalize(model.text_projection(pooled), dim=-1)


@torch.no_grad()
def head(model: Any, tokenizer: Any, task: str) -> Tensor:
    """A task's classes as projected features times the model's scale, the mean of all templates, (C, P)."""
    classes = TASKS[task].classes
    each = [text_features(model, tokenizer, (caption(name, t) for name in classes)) for t in TEMPLATES]
    weight_CP: Tensor = normalize(torch.stack(each).mean(0), dim=-1) * model.logit_scale.exp()
    return weight_CP


def image_features(model: Any, pixels_BCHW: Tensor) -> Tensor:
    """The vision tower's projection of pictures, of length 1, (B, P)."""
    pooled = model.vision_model(pixel_values=pixels_BCHW).pooler_output
    return normalize(model.visual_projection(pooled), dim=-1)


@torch.no_grad()
def accuracy(model: Any, head_CP: Tensor, pictures: Pictures) -> float:
    """The share of pictures put into their class."""
    found = [(image_features(model, part) @ head_CP.T).argmax(-1) for part in torch.split(pictures.pixels(), 250)]
    return float((torch.cat(found) == pictures.labels).float().mean())


class Pictures:
    """A file of pictures, in memory as bytes."""

    def __init__(self, path: Path) -> None:
        images, labels = zip(*read(path), strict=True)
        self.images: NDArray[np.uint8] = np.stack([np.asarray(image) for image in images])
        self.labels = torch.tensor(labels)

    def pixels(
        self, rows: NDArray[np.int64] | slice = slice(None), *, moved: np.random.Generator | None = None
    ) -> Tensor:
        """Some of them as the model takes them, (B, 3, SIZE, SIZE); with a generator each at a place of its own."""
        images = self.images[rows] if moved is None else _moved(self.images[rows], moved)
        values = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return (values / 255 - _MEAN) / _MEAN


def _moved(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures moved by up to _MOVED pixels either way, their edges repeated."""
    count = len(images)
    wide = np.pad(images, ((0, 0), (_MOVED, _MOVED), (_MOVED, _MOVED), (0, 0)), mode="edge")
    top, left = rng.integers(0, 2 * _MOVED + 1, (2, count, 1)) + np.arange(SIZE)
    found: NDArray[np.uint8] = wide[np.arange(count)[:, None, None], top[:, :, None], left[:, None, :]]
    return found
