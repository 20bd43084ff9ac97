"""Which files of a folder libraries read when they load a model from it."""

import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

_PATTERNS = (
    # weights, of every library that loads some by a glob or by a fixed name
    "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.ckpt.*", "*.h5", "*.msgpack", "*.gguf",
    "*.ggml", "*.onnx", "*.onnx_data", "weights*.npz", "*.ot", "*.tflite", "*.mlmodel", "*.tensors", "consolidated.*",
    "params.json", "adapter_*",
    # what says how they are to be read
    "config.json", "*_config.json", "config_*.json", "modules.json", "model_index.json",
    "hf_quant_config.json", "quantize_config.json", "quant_strategy.json",
    # tokenizers, processors, templates
    "tokenizer*", "tekken.json", "*.tiktoken", "*.model", "*.spm", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "*-vocab.*", "merges.txt", "bpe.codes", "chat_template*", "image_processor*.json",
    "feature_extractor*.json", "additional_chat_templates/*",
)  # fmt: skip
_LOADED = re.compile("|".join(translate(pattern) for pattern in _PATTERNS), re.IGNORECASE)
_FOLDERS = ("additional_chat_templates",)


def loaded_files(folder: Path) -> Iterator[str]:
    """The names, within a folder, of what a library would take for a part of a model: files, folders and links."""
    names = _names(folder)
    names += [f"{inner}/{name}" for inner in _FOLDERS if inner in names for name in _names(folder / inner)]
    yield from filter(is_loaded, names)


def is_loaded(name: str) -> bool:
    """Whether a file of this name, within its folder or repository, is one that a library reads."""
    folder, _, _ = name.rpartition("/")
    return folder in ("", *_FOLDERS) and _LOADED.fullmatch(name) is not None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
