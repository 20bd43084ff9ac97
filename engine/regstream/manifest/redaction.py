"""Removes local paths and secrets from text that is published or printed."""

import os
import re
from collections.abc import Iterable
from typing import Any

#: The start of a local path: absolute (on Windows, with a drive or a server), in a home folder, or with "..".
_PREFIX = (
    r"(?:file:/{1,3}|~[\w.-]*(?=[/\\\"'\s]|$)[/\\]*|/|(?:\.\.[/\\]+)+|\.\.(?=[\"'\s]|$)|[A-Za-z]:(?:\\{1,2}|/)(?!/))"
)
_SERVER = r"(?:\\{4}|(?<=')\\{2})[\w.$-]+\\{1,2}(?!\\)"
_IS_LOCAL = re.compile(rf"\s*(?:{_PREFIX}|\\\\[\w.$-]+\\)")
#: A path in quotes or at the start of a line extends to their end; elsewhere, as in comments, to the next space.
_PATH = re.compile(
    rf"""(?<=")(?:{_PREFIX}|{_SERVER})[^"\n]*(?=")|(?<=')(?:{_PREFIX}|{_SERVER})[^'\n]*(?=')"""
    rf"""|^[ \t]*{_PREFIX}[^"'\n]*|(?<![^\s(=,;#\[]){_PREFIX}[^\s"',;)\]]*""",
    re.MULTILINE,
)
#: A home folder, whose name is a user's.
_HOME_FOLDER = re.compile(r"(?:^|.*[/\\])(?:home|users)[/\\]+[^/\\]*", re.IGNORECASE)
_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\|[^/]*\.\.\\|~[\w.-]*\\")
#: One slash is enough: `Path` merges the two of a URL.
_CREDENTIALS = re.compile(r"(?<=[A-Za-z]{2}:/)(/?)[^/\s@\"']+@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
_REMOVED = "<removed>"


def redact_secrets(text: str) -> str:
    """The text without the hub's tokens and without the credentials in URLs."""
    for name in _TOKEN_VARIABLES:
        if len(token := os.environ.get(name, "").strip()) >= 4:
            text = text.replace(token, _REMOVED)
    return _TOKEN.sub(_REMOVED, _CREDENTIALS.sub(r"\1", text))


def redact_paths(text: str) -> str:
    """The text without secrets, with each local path replaced by its last component."""
    return redact_secrets(
        _PATH.sub(lambda match: base_name(match[0]) if len(match[0]) > 1 or _is_quoted(match) else "/", text)
    )


def is_local_path(text: str) -> bool:
    """Whether a text is a local path; "/" alone is not."""
    return _IS_LOCAL.match(text) is not None and text.strip() != "/"


def base_name(path: str) -> str:
    """The last component of a path; empty if it is the name of a user."""
    path = path.strip()
    separators = r"/\\" if _WINDOWS_PATH.match(path) else "/"  # in other paths a backslash is an escape
    path = path.rstrip(separators)
    if _HOME_FOLDER.fullmatch(path) or (path.startswith("~") and not re.search(f"[{separators}]", path)):
        return ""
    name = re.split(f"[{separators}]+", path)[-1]
    return "" if name in ("..", "file:") or re.fullmatch(r"[A-Za-z]:", name) else name


def redact_json(value: Any, *, dropped: Iterable[str] = ()) -> Any:
    """JSON without secrets and `dropped` keys, at any depth; each local path is replaced by its last component."""
    dropped = frozenset(dropped)
    if isinstance(value, dict):
        return {key: redact_json(inner, dropped=dropped) for key, inner in value.items() if key not in dropped}
    if isinstance(value, list):
        return [redact_json(inner, dropped=dropped) for inner in value]
    if isinstance(value, str):
        return base_name(value) if is_local_path(value) else redact_secrets(value)
    return value


def _is_quoted(match: re.Match[str]) -> bool:
    start = match.start()
    return start > 0 and match.string[start - 1] in "\"'"
