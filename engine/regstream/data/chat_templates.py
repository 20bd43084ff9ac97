"""The chat templates in a checkpoint's folder, from whichever files hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from regstream.storage.json_file import dump_json, object_or_empty

DEFAULT: Final = "default"
_FILE, _OTHERS = "chat_template.jinja", "additional_chat_templates"
_SETTINGS, _OF_PROCESSOR, _KEY = "tokenizer_config.json", "chat_template.json", "chat_template"


def read_templates(folder: Path) -> dict[str, str]:
    """The templates by name, `DEFAULT` first; empty where there is none."""
    templates: dict[str, str] = {}
    for name in (_SETTINGS, _OF_PROCESSOR):
        stored = object_or_empty(folder / name).get(_KEY)
        entries = stored if isinstance(stored, list) else [{"name": DEFAULT, "template": stored}]
        for entry in entries:
            if isinstance(entry, dict) and isinstance(text := entry.get("template"), str):
                templates.setdefault(str(entry.get("name")), text)
    if (file := folder / _FILE).is_file():
        templates[DEFAULT] = _text(file)
    for file in sorted((folder / _OTHERS).glob("*.jinja")):
        templates[file.stem] = _text(file)
    return {name: templates[name] for name in sorted(templates, key=lambda name: (name != DEFAULT, name))}


def write_templates(folder: Path, templates: Mapping[str, str]) -> None:
    """Have these templates in a folder, and no others, in the files in which transformers saves them."""
    for file in (folder / _FILE, folder / _OF_PROCESSOR, *(folder / _OTHERS).glob("*.jinja")):
        file.unlink(missing_ok=True)
    if _KEY in (settings := object_or_empty(folder / _SETTINGS)):
        (folder / _SETTINGS).write_bytes(dump_json({key: value for key, value in settings.items() if key != _KEY}))
    for name, text in templates.items():
        file = folder / _FILE if name == DEFAULT else folder / _OTHERS / f"{Path(name).name}.jinja"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
