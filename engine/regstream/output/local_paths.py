"""The base's own files beside its weights, as they go into a result: unchanged, but for where they once were."""

import json
from typing import Any

from regstream.manifest.redaction import is_local_path

#: Where a library found what it read, which nothing reads again.
_ORIGINS = frozenset({
    "name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "merges_file", "spm_file",
    "special_tokens_map_file", "added_tokens_file", "tokenizer_config_file", "cache_dir", "local_files_only",
})  # fmt: skip
#: Settings; the strings of other files are vocabularies, in which anything may look like a path.
_SETTINGS = frozenset({
    "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json",
})  # fmt: skip


def without_local_paths(name: str, content: bytes) -> bytes:
    """A file's bytes; settings that say from which folder of a machine they were loaded do not say so any more."""
    if name not in _SETTINGS:
        return content
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError):
        return content  # whoever reads it will say what is wrong with it
    cleaned = _without_origins(settings)
    return content if cleaned == settings else (json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n").encode()


def _without_origins(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_origins(inner) for key, inner in value.items() if not _is_origin(key, inner)}
    return [_without_origins(inner) for inner in value] if isinstance(value, list) else value


def _is_origin(key: str, value: Any) -> bool:
    return key in _ORIGINS and isinstance(value, str) and is_local_path(value)
