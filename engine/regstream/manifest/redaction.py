"""What is published, and what is said, without what it would tell of a user: folders of the machine, and secrets."""

import os
import re
from collections.abc import Iterable
from typing import Any

#: How a path begins that is of one machine: absolute (with a drive or a server on Windows), a home folder, upward.
_START = (
    r"(?:file:/{1,3}|~[\w.-]*(?=[/\\\"'\s]|$)[/\\]*|/|(?:\.\.[/\\]+)+|\.\.(?=[\"'\s]|$)|[A-Za-z]:(?:\\{1,2}|/)(?!/))"
)
_SERVER = r"(?:\\{4}|(?<=')\\{2})[\w.$-]+\\{1,2}(?!\\)"
_AT_START = re.compile(rf"\s*(?:{_START}|\\\\[\w.$-]+\\)")
#: In quotes, or alone in a line, to their end; elsewhere, as in comments, to the next space.
_PATH = re.compile(
    rf"""(?<=")(?:{_START}|{_SERVER})[^"\n]*(?=")|(?<=')(?:{_START}|{_SERVER})[^'\n]*(?=')"""
    rf"""|^[ \t]*{_START}[^"'\n]*|(?<![^\s(=,;#\[]){_START}[^\s"',;)\]]*""",
    re.MULTILINE,
)
#: Below these a folder is called as its user is.
_HOMES = re.compile(r"(?:^|.*[/\\])(?:home|users)[/\\]+[^/\\]*", re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:\\|\\\\|[^/]*\.\.\\|~[\w.-]*\\")
#: Also where a path was made of an address, with one slash.
_CREDENTIALS = re.compile(r"(?<=[A-Za-z]{2}:/)(/?)[^/\s@\"']+@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
_REMOVED = "<removed>"


def redact_secrets(text: str) -> str:
    """The text without tokens of the hub, and without the credentials in addresses."""
    for name in _TOKEN_VARIABLES:
        if len(token := os.environ.get(name, "").strip()) >= 4:
            text = text.replace(token, _REMOVED)
    return _TOKEN.sub(_REMOVED, _CREDENTIALS.sub(r"\1", text))


def redact_paths(text: str) -> str:
    """The text, secrets removed, with every path of this machine in it cut down to the name at its end."""
    return redact_secrets(
        _PATH.sub(lambda match: base_name(match[0]) if len(match[0]) > 1 or _quoted(match) else "/", text)
    )


def is_local_path(text: str) -> bool:
    """Whether a text is a path that only one machine has."""
    return _AT_START.match(text) is not None and text.strip() != "/"


def base_name(path: str) -> str:
    """The name at a path's end; nothing where that is a user's."""
    path = path.strip()
    ends = r"/\\" if _WINDOWS.match(path) else "/"  # elsewhere a backslash escapes what follows
    path = path.rstrip(ends)
    if _HOMES.fullmatch(path) or (path.startswith("~") and not re.search(f"[{ends}]", path)):
        return ""
    name = re.split(f"[{ends}]+", path)[-1]
    return "" if name in ("..", "file:") or re.fullmatch(r"[A-Za-z]:", name) else name


def redact_values(value: Any, *, dropped: Iterable[str] = ()) -> Any:
    """JSON without the `dropped` keys, at any depth, and with each text that is a path of a machine cut to its name."""
    dropped = frozenset(dropped)
    if isinstance(value, dict):
        return {key: redact_values(inner, dropped=dropped) for key, inner in value.items() if key not in dropped}
    if isinstance(value, list):
        return [redact_values(inner, dropped=dropped) for inner in value]
    if isinstance(value, str):
        return base_name(value) if is_local_path(value) else redact_secrets(value)
    return value


def _quoted(match: re.Match[str]) -> bool:
    start = match.start()
    return start > 0 and match.string[start - 1] in "\"'"
