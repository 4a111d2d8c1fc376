"""Conversations: which messages are valid, and in which forms a chat template may accept them.

Placeholders keep text from outside apart from the template's own words while that is rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from hogwild_agents.errors import ChatTemplateError, InvalidMessageError
from hogwild_agents.team.steps import SEPARATOR

Message = Mapping[str, Any]
"""`{"role": ..., "content": ...}`, and any other keys that the chat template reads."""

ROLES = ("system", "user", "assistant", "tool")

_JSON_TYPES = frozenset(
    ["function", "object", "array", "string", "number", "integer", "boolean", "null"]
)
"""Values of `type` in tools and calls that stay as they are, because templates branch on them."""


class Placeholders:
    """Stand for outside text while a chat template is rendered.

    Each placeholder ends in a quotation mark, which shows whether the template has written it as
    JSON. All are nine characters long, because some templates demand that of a tool call's id.

    Args:
        template: The source. Keys that it names are its own; all other keys are outside text.
    """

    def __init__(self, template: str) -> None:
        keys = re.findall(r"[.'\"]([A-Za-z_]\w*)", template)
        self._keys = {"role", "content", "tool_calls", *keys}
        self._prefix = next(p for n in count() if (p := f"Zq{n:02}") not in template)
        self._pattern = re.compile(rf'{self._prefix}([0-9a-f]{{4,}})(\\*)"')
        self._texts: list[str] = []

    def hide(self, value: Any) -> Any:
        """`value` with a placeholder for every text in it, except keys that the template names.

        Within one value equal texts get equal placeholders: templates look keys up in lists of
        names.
        """
        return self._hide(value, {})

    def _hide(self, value: Any, placeholders: dict[str, str]) -> Any:
        if isinstance(value, Mapping):
            return {
                key if key in self._keys else self._hide(key, placeholders): self._hide_item(
                    key, item, placeholders
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._hide(item, placeholders) for item in value]
        text = value if isinstance(value, str) else str(value)
        # Templates ask whether there is any text, so an empty one stays.
        if not text or value is None or type(value) in (bool, int, float):
            return value
        if text not in placeholders:
            self._texts.append(text)
            placeholders[text] = f'{self._prefix}{len(self._texts) - 1:04x}"'
        return placeholders[text]

    def _hide_item(self, key: Any, item: Any, placeholders: dict[str, str]) -> Any:
        """Hides the value of a key; JSON types stay, and so do names of keys that stay."""
        if key == "type" and isinstance(item, str) and item in _JSON_TYPES:
            return item
        if key == "required" and isinstance(item, list | tuple):
            return [
                name
                if isinstance(name, str) and name in self._keys
                else self._hide(name, placeholders)
                for name in item
            ]
        return self._hide(item, placeholders)

    def survive(self, hidden: Any, rendered: str) -> bool:
        """Whether the template has kept any placeholder of `hidden`; True if it has none."""
        placeholders = re.findall(rf"{self._prefix}[0-9a-f]{{4,}}", repr(hidden))
        return not placeholders or any(placeholder in rendered for placeholder in placeholders)

    def reveal(self, rendered: str) -> list[str]:
        """Splits into the template's words and outside text in turn; first and last are words.

        Raises:
            ChatTemplateError: The template has altered a placeholder beyond recognition.
        """
        pieces, end = [], 0
        for match in self._pattern.finditer(rendered):
            text = self._texts[int(match[1], 16)]
            for _ in range(len(match[2]).bit_length()):  # 0, 1, 3, 7, ... backslashes
                text = json.dumps(text, ensure_ascii=False)[1:-1]
            pieces += [rendered[end : match.start()], text]
            end = match.end()
        pieces.append(rendered[end:])
        if any(self._prefix.lower() in words.lower() for words in pieces[::2]):
            raise ChatTemplateError(
                "The model's chat template rewrites the texts that it is given, so text from "
                "outside cannot be kept apart from control tokens: set another "
                "tokenizer.chat_template."
            )
        return pieces


def check_messages(messages: Sequence[Any]) -> list[Message]:
    """The messages, with an empty text where a message that calls tools has none.

    Raises:
        InvalidMessageError: There is no message, or one has an unknown role or no text.
    """
    if not messages:
        raise InvalidMessageError("There is no message: give at least one of the role user.")
    checked: list[Message] = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise InvalidMessageError(
                f"Message {index} has the role {role!r}: give a mapping whose role is one of "
                f"{', '.join(ROLES)}."
            )
        content = message.get("content")
        if content is None and message.get("tool_calls"):
            content = ""
        if not isinstance(content, str):
            raise InvalidMessageError(
                f"Message {index} ({role}) has content of type {type(content).__name__}: "
                "give a str, an empty one if there is nothing to say."
            )
        checked.append({**message, "content": content})
    return checked


def variants_of(messages: Sequence[Message]) -> list[list[Message]]:
    """Forms of a conversation that a template may accept, the least changed first."""
    folded = _fold_system(messages)
    merged = _merge_neighbours(folded)
    variants = [
        list(messages),
        _merge_neighbours(messages),
        folded,
        merged,
        _start_with_user(merged),
    ]
    return [variant for n, variant in enumerate(variants) if variant not in variants[:n]]


def _fold_system(messages: Sequence[Message]) -> list[Message]:
    """Moves system text to the head of the next user message, or into a last one of its own."""
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
            continue
        if message["role"] == "user" and waiting:
            message = {**message, "content": SEPARATOR.join([*waiting, message["content"]])}
            waiting = []
        folded.append(message)
    if waiting:
        folded.append({"role": "user", "content": SEPARATOR.join(waiting)})
    return folded


def _start_with_user(messages: Sequence[Message]) -> list[Message]:
    """Puts an empty user message before a conversation that starts with another role."""
    starts = messages[0]["role"] == "user"
    return [*([] if starts else [{"role": "user", "content": ""}]), *messages]


def _merge_neighbours(messages: Sequence[Message]) -> list[Message]:
    """Joins neighbours of one role that hold only text."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else {}
        same = last.get("role") == message["role"] != "tool"
        if same and last.keys() == message.keys() == {"role", "content"}:
            both = (last["content"], message["content"])
            merged[-1] = {**message, "content": SEPARATOR.join(filter(None, both))}
        else:
            merged.append(message)
    return merged
