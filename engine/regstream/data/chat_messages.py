"""Conversations of data sets, converted to the list of messages that a chat template reads."""

from collections.abc import Iterable, Mapping
from typing import Any

from regstream.errors import InputError

MESSAGES = "messages"
#: The fields of ShareGPT rows, with messages {"from": "human", "value": "…"}.
CONVERSATIONS = ("conversations", "conversation")
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "bot": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "function": "tool", "observation": "tool",
}  # fmt: skip


def stored_field(field: str, available: Iterable[str]) -> str:
    """Return `field`, or ShareGPT's `conversations` or `conversation` where `messages` is missing."""
    names = set(available)
    if field != MESSAGES or field in names:
        return field
    return next((name for name in CONVERSATIONS if name in names), field)


def chat_messages(location: str, value: Any) -> Any:
    """Convert ShareGPT messages to `role` and `content`; others are unchanged.

    Raises:
        InputError: the value is not a list of messages, a message lacks a role or content, or a ShareGPT message is
            from none of user, assistant, system and tool.
    """
    if not isinstance(value, list):
        raise InputError(f"{location}: expected a list of messages, found {str(value)[:40]}")
    is_sharegpt = any(_is_sharegpt(message) for message in value)
    messages = [_from_sharegpt(location, message) for message in value] if is_sharegpt else value
    for message in messages:
        _check_message(location, message)
    return messages


def _check_message(location: str, message: Any) -> None:
    """Refuse a message without role or content, which templates would print as nothing or None."""
    if not (isinstance(message, Mapping) and isinstance(message.get("role"), str)):
        raise InputError(
            f'{location}: expected messages {{"role": …, "content": …}}, or ShareGPT\'s {{"from": …, "value": …}},'
            f" found {str(message)[:40]}"
        )
    content = message.get("content")
    is_call = content is None and bool(message.get("tool_calls"))
    if not (is_call or isinstance(content, str | list | Mapping)):
        raise InputError(
            f'{location}: expected text in the "content" of the message of {message["role"]!r}, found'
            f" {str(content)[:40]}"
        )


def _is_sharegpt(message: Any) -> bool:
    return isinstance(message, Mapping) and "from" in message and "value" in message and "role" not in message


def _from_sharegpt(location: str, message: Any) -> Any:
    if not _is_sharegpt(message):
        raise InputError(f'{location}: expected messages with "from" and "value" throughout, found {str(message)[:40]}')
    role = _ROLES.get(message["from"].lower()) if isinstance(message["from"], str) else None
    if role is None:
        raise InputError(
            f"{location}: a ShareGPT message is from {str(message['from'])[:40]!r}; known are {', '.join(_ROLES)};"
            ' write others as {"role": …, "content": …} in "messages"'
        )
    return {"role": role, "content": message["value"]}
