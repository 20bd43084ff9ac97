"""Removes paths of the machine from the base's tokenizer and processor settings before they are published."""

from typing import Any

from regstream.manifest.redaction import is_local_path
from regstream.storage.json_file import dump_json, parse_json

#: Keys in which a library saves where it loaded its files from; none of them is read again.
_ORIGIN_KEYS = frozenset({
    "name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "merges_file", "spm_file",
    "special_tokens_map_file", "added_tokens_file", "tokenizer_config_file", "cache_dir", "local_files_only",
})  # fmt: skip
#: Other files hold vocabularies, in which any string may look like a path.
_SETTINGS_FILES = frozenset({
    "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json",
})  # fmt: skip


def remove_local_paths(name: str, content: bytes) -> bytes:
    """The content of an auxiliary file without the keys that hold a local path; other files are returned unchanged."""
    if name not in _SETTINGS_FILES:
        return content
    settings = parse_json(content)  # None if invalid: returned unchanged
    cleaned = _without_origins(settings)
    return content if cleaned == settings else dump_json(cleaned)


def _without_origins(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_origins(inner)
            for key, inner in value.items()
            if not (key in _ORIGIN_KEYS and isinstance(inner, str) and is_local_path(inner))
        }
    return [_without_origins(inner) for inner in value] if isinstance(value, list) else value
