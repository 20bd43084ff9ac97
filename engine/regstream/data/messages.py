"""Conversations as data sets write them, as the list of messages that a chat template reads."""

from collections.abc import Iterable, Mapping
from typing import Any

from regstream.errors import InputError

MESSAGES = "messages"
#: The field of ShareGPT's rows, whose messages are {"from": "human", "value": "…"}.
CONVERSATIONS = "conversations"
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "bot": "assistant", "model": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip


def stored_field(field: str, available: Iterable[str]) -> str:
    """The field that holds what `field` asks for: ShareGPT's where a row has no `messages`."""
    names = set(available)
    return CONVERSATIONS if field == MESSAGES and field not in names and CONVERSATIONS in names else field


def chat_messages(place: str, value: Any) -> Any:
    """Messages with `role` and `content`; those of ShareGPT become such, any others stay as they are.

    Raises:
        InputError: it is no list of messages, a message has no role or nothing to say, or one of ShareGPT is from
            someone who is no user, assistant, system or tool.
    """
    if not isinstance(value, list):
        raise InputError(f"{place}: expected a list of messages, found {str(value)[:40]}")
    is_sharegpt = any(_is_sharegpt(message) for message in value)
    messages = [_message(place, message) for message in value] if is_sharegpt else value
    for message in messages:
        _check(place, message)
    return messages


def _check(place: str, message: Any) -> None:
    """Templates print what is not there as nothing, or as None."""
    if not (isinstance(message, Mapping) and isinstance(message.get("role"), str)):
        raise InputError(
            f'{place}: expected messages {{"role": …, "content": …}}, or ShareGPT\'s {{"from": …, "value": …}}, found'
            f" {str(message)[:40]}"
        )
    content = message.get("content")
    is_call = content is None and bool(message.get("tool_calls"))
    if not (is_call or isinstance(content, str | list | Mapping)):
        raise InputError(
            f'{place}: expected text in the "content" of the message of {message["role"]!r}, found {str(content)[:40]}'
        )


def _is_sharegpt(message: Any) -> bool:
    return isinstance(message, Mapping) and "from" in message and "value" in message and "role" not in message


def _message(place: str, message: Any) -> Any:
    if not _is_sharegpt(message):
        raise InputError(f'{place}: expected messages with "from" and "value" throughout, found {str(message)[:40]}')
    role = _ROLES.get(message["from"].lower()) if isinstance(message["from"], str) else None
    if role is None:
        raise InputError(
            f"{place}: a ShareGPT message is from {str(message['from'])[:40]!r}; known are {', '.join(_ROLES)};"
            ' write others as {"role": …, "content": …} in "messages"'
        )
    return {"role": role, "content": message["value"]}
