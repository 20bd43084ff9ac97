"""Which files of a folder libraries load as parts of a model, by their names."""

import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

_PATTERNS = (
    # weights, in the formats and under the names that any library loads
    "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.ckpt.*", "*.h5", "*.msgpack", "*.gguf",
    "*.ggml", "*.onnx", "*.onnx_data", "weights*.npz", "*.ot", "*.tflite", "*.mlmodel", "*.tensors", "consolidated.*",
    "params.json", "adapter_*",
    # configs
    "config.json", "*_config.json", "config_*.json", "modules.json", "model_index.json",
    "hf_quant_config.json", "quantize_config.json", "quant_strategy.json",
    # tokenizers, processors, templates
    "tokenizer*", "tekken.json", "*.tiktoken", "*.model", "*.spm", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "*-vocab.*", "merges.txt", "bpe.codes", "chat_template*", "image_processor*.json",
    "feature_extractor*.json", "additional_chat_templates/*",
)  # fmt: skip
_MODEL_FILE = re.compile("|".join(translate(pattern) for pattern in _PATTERNS), re.IGNORECASE)
_FOLDERS = ("additional_chat_templates",)


def model_files(folder: Path) -> Iterator[str]:
    """The names of files, folders and links in a folder that a library would load."""
    names = _names(folder)
    names += [f"{inner}/{name}" for inner in _FOLDERS if inner in names for name in _names(folder / inner)]
    yield from filter(is_model_file, names)


def is_model_file(name: str) -> bool:
    """Whether libraries load a file of this name, which is relative to its folder or repository."""
    folder, _, _ = name.rpartition("/")
    return folder in ("", *_FOLDERS) and _MODEL_FILE.fullmatch(name) is not None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
