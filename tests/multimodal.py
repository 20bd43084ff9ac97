"""Tiny vision-language models with their processors, and rows of text and images for them."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from checkpoints import INITIALIZER_RANGE, SENTENCES, VOCABULARY, Folders, make_tokenizer, perturb, randomise
from merging import Merge

VisionLanguage = Literal["qwen2_5_vl", "gemma3", "llava"]
VISION_LANGUAGE: tuple[VisionLanguage, ...] = ("qwen2_5_vl", "gemma3", "llava")

#: Special tokens after the vocabulary of the tests' tokenizer, in this order.
_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_GEMMA_TOKENS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
_LLAVA_TOKENS = {"image_token": "<image>"}
#: The token that stands for an image in a row's text.
IMAGE_TOKENS: dict[VisionLanguage, str] = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
    "llava": "<image>",
}
_PATCH_SIZE, _IMAGE_SIZE = 4, 16
_GEMMA_IMAGE_TOKENS = 4


def make_vision_language(
    folder: Path,
    kind: VisionLanguage,
    *,
    candidates: int = 2,
    layers: int = 2,
    hidden: int = 32,
    seed: int = 0,
    spread: float = 0.1,
) -> Folders:
    """Write a base and its candidates with their processors: each tensor of a candidate is the base's plus noise."""
    generator = torch.Generator().manual_seed(seed)
    model = _new_model(kind, layers, hidden)
    randomise(model, generator)
    folders = Folders(base=folder / "base", candidates=[folder / f"candidate-{i}" for i in range(candidates)])
    origin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for path in (folders.base, *folders.candidates):
        model.load_state_dict(origin)
        if path != folders.base:
            perturb(model, spread, generator)
        model.save_pretrained(path)
        write_processor(path, kind)
    return folders


def make_vision_language_merge(
    folder: Path,
    kind: VisionLanguage,
    *,
    candidates: int = 2,
    num_rows: int = 4,
    merge: str = "",
    calibration: str = "",
    **options: Any,
) -> Merge:
    """Write a base, candidates, chats with images for each, and `manifest.toml`; further TOML of two of its tables.

    The rows of the result are what transformers makes of the chats.
    """
    folders = make_vision_language(folder, kind, candidates=candidates, **options)
    text = f'[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "merged"\n{merge}\n'
    rows = []
    for index, path in enumerate(folders.candidates):
        source = write_rows_with_images(folder / f"task{index}" / "rows.jsonl", num_rows, seed=index)
        rows.append(processor_inputs(folders.base, source))
        text += f'\n[[candidates]]\nname = "task{index}"\nmodel = "{path.name}"\n[candidates.calibration]\n'
        text += f'path = "task{index}/rows.jsonl"\nfield = "messages"\n{calibration}\n'
    (folder / "manifest.toml").write_text(text + '\n[resources]\ndevice = "cpu"\n')
    return Merge(folder / "manifest.toml", folders, rows)


def write_processor(folder: Path, kind: VisionLanguage) -> Path:
    """Write a tokenizer, a chat template and an image processor, as repositories of the hub have them."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(kind).save_pretrained(folder)
    # A processor that was built here would need torchvision for the part of it that prepares videos.
    (folder / "preprocessor_config.json").write_text(json.dumps(_image_settings(kind), indent=2))
    if kind != "qwen2_5_vl":
        (folder / "processor_config.json").write_text(json.dumps(_processor_settings(kind), indent=2))
    (folder / "chat_template.jinja").write_text(_template(IMAGE_TOKENS[kind], has_bos=kind == "gemma3"))
    return folder


def write_image(path: Path, seed: int, size: tuple[int, int] = (20, 12)) -> Path:
    """A picture of noise, (width, height), in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def write_rows_with_images(path: Path, count: int = 4, *, seed: int = 0) -> Path:
    """Chats with zero to two images each, in files of different sizes beside the .jsonl."""
    rows = []
    for index in range(count):
        images = [f"pictures/{index}-{n}.png" for n in range(index % 3)]
        for n, image in enumerate(images):
            write_image(path.parent / image, seed * 1000 + 10 * index + n, size=(16 + 8 * index, 12 + 4 * n))
        parts = [{"type": "image", "path": image} for image in images]
        parts += [{"type": "text", "text": SENTENCES[(seed + index) % len(SENTENCES)]}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
        rows.append({"messages": [{"role": "user", "content": parts}, answer]})
    return write_jsonl(path, rows)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load_model(folder: Path, kind: VisionLanguage, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """The model in a folder, whole, in evaluation mode."""
    loaders: dict[VisionLanguage, Any] = {
        "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
        "gemma3": Gemma3ForConditionalGeneration,
        "llava": LlavaForConditionalGeneration,
    }
    loaded: tuple[PreTrainedModel, dict[str, Any]] = loaders[kind].from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    model, info = loaded
    assert not info["missing_keys"], info["missing_keys"]
    model.train(False)
    return model


def processor_inputs(base: Path, path: Path) -> list[dict[str, Tensor]]:
    """What transformers alone makes of each row of a .jsonl of messages, in its order, with padding masks left out."""
    processor, inputs = _load_processor(base), []
    for line in path.read_text().splitlines():
        messages = json.loads(line)["messages"]
        parts = [part for message in messages for part in message["content"] if part["type"] == "image"]
        images = [Image.open(path.parent / part["path"]).convert("RGB") for part in parts]
        text = processor.apply_chat_template(messages, tokenize=False)
        has_bos = text.startswith(processor.tokenizer.bos_token)
        row = processor(text=[text], images=images or None, return_tensors="pt", add_special_tokens=not has_bos)
        assert bool(row.pop("attention_mask").all())
        inputs.append(dict(row))
    return inputs


def _load_processor(folder: Path) -> Any:
    """Without a part for videos, for which transformers needs torchvision."""
    settings: Any = json.loads((folder / "preprocessor_config.json").read_text())
    if settings.get("processor_class") != "Qwen2_5_VLProcessor":
        load: Any = AutoProcessor.from_pretrained
        return load(folder)

    class WithoutVideos(Qwen2_5_VLProcessor):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    return WithoutVideos.from_pretrained(folder)


def _tokenizer(kind: VisionLanguage) -> PreTrainedTokenizerFast:
    tokenizer: Any = copy.deepcopy(make_tokenizer())  # untyped; tokens are added to it
    tokenizer.backend_tokenizer.no_truncation()  # it keeps the length of the last call of any test
    if kind == "qwen2_5_vl":
        tokenizer.add_special_tokens({"additional_special_tokens": list(_QWEN_TOKENS)})
        made: PreTrainedTokenizerFast = tokenizer
        return made
    make: Any = PreTrainedTokenizerFast
    with_images: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=_GEMMA_TOKENS if kind == "gemma3" else _LLAVA_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    return with_images


def _token_id(kind: VisionLanguage, token: str) -> int:
    tokenizer: Any = _tokenizer(kind)  # untyped
    return int(tokenizer.convert_tokens_to_ids(token))


def _template(image: str, *, has_bos: bool) -> str:
    return (
        ("{{ bos_token }}" if has_bos else "") + "{% for message in messages %}{{ message.role }}: "
        "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
        "{% if part.type == 'image' %}" + image + "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}\n"
        "{% endfor %}"
    )


def _image_settings(kind: VisionLanguage) -> dict[str, Any]:
    if kind == "qwen2_5_vl":
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "patch_size": _PATCH_SIZE,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "size": {"shortest_edge": 64, "longest_edge": 1024},  # numbers of pixels
        }
    square = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    if kind == "gemma3":
        return {"image_processor_type": "Gemma3ImageProcessor", "size": square}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": _IMAGE_SIZE},
        "crop_size": square,
    }


def _processor_settings(kind: VisionLanguage) -> dict[str, Any]:
    if kind == "gemma3":
        return {"processor_class": "Gemma3Processor", "image_seq_length": _GEMMA_IMAGE_TOKENS}
    settings = {
        "patch_size": _PATCH_SIZE,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }
    return {"processor_class": "LlavaProcessor", **settings}


def _new_model(kind: VisionLanguage, layers: int, hidden: int) -> PreTrainedModel:
    text: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY + 8,
        "max_position_embeddings": 512,
        "initializer_range": INITIALIZER_RANGE,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    vision |= {"num_attention_heads": 2, "image_size": _IMAGE_SIZE, "patch_size": _PATCH_SIZE}
    if kind == "gemma3":
        kinds = ["sliding_attention", "full_attention"] * layers
        text |= {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "layer_types": kinds[:layers]}
        indices: dict[str, Any] = {f"{name}_index": _token_id(kind, token) for name, token in _GEMMA_TOKENS.items()}
        gemma = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=_GEMMA_IMAGE_TOKENS, **indices)
        return Gemma3ForConditionalGeneration(gemma)
    if kind == "llava":
        vision |= {"model_type": "clip_vision_model", "projection_dim": hidden}
        return LlavaForConditionalGeneration(
            LlavaConfig(
                text_config=text | {"model_type": "llama"},
                vision_config=vision,
                image_token_index=_token_id(kind, "<image>"),
                vision_feature_layer=-1,
            )
        )
    tokens = [_token_id(kind, token) for token in _QWEN_TOKENS]
    vision = {"depth": layers, "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_heads": 2}
    vision |= {"out_hidden_size": hidden, "patch_size": _PATCH_SIZE, "spatial_merge_size": 2, "window_size": 16}
    vision |= {"fullatt_block_indexes": [layers - 1], "temporal_patch_size": 2}
    rotary = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text | {"rope_parameters": rotary},
            vision_config=vision,
            vision_start_token_id=tokens[0],
            vision_end_token_id=tokens[1],
            image_token_id=tokens[2],
            video_token_id=tokens[3],
            tie_word_embeddings=False,
        )
    )
