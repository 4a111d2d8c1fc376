"""Conversations: what messages may be, and how a chat template may take them.

Text from outside is kept apart from a template's own words while that arranges both.
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
"""`{"role": ..., "content": ...}`, and whatever else the chat template reads."""

ROLES = ("system", "user", "assistant", "tool")

_KINDS = frozenset(
    ["function", "object", "array", "string", "number", "integer", "boolean", "null"]
)
"""What `type` may say in tools and calls. Templates branch on it."""


class Placeholders:
    """Stand-ins for outside text while a chat template arranges it.

    Each ends in a quotation mark, which shows whether the template has written it as JSON. All are
    nine characters long, as some templates demand of a tool call's id.

    Args:
        template: The source. Keys that it names are its own; all others are from outside.
    """

    def __init__(self, template: str) -> None:
        named = re.findall(r"[.'\"]([A-Za-z_]\w*)", template)
        self._names = {"role", "content", "tool_calls", *named}
        self._prefix = next(p for n in count() if (p := f"Zq{n:02}") not in template)
        self._form = re.compile(rf'{self._prefix}([0-9a-f]{{4,}})(\\*)"')
        self._texts: list[str] = []

    def hide(self, value: Any) -> Any:
        """`value` with a stand-in for every text in it, but the keys that the template names.

        Within one value equal texts get equal stand-ins: templates look keys up in lists of names.
        """
        return self._hide(value, {})

    def _hide(self, value: Any, known: dict[str, str]) -> Any:
        if isinstance(value, Mapping):
            return {
                key if key in self._names else self._hide(key, known): self._hide_item(
                    key, item, known
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._hide(item, known) for item in value]
        text = value if isinstance(value, str) else str(value)
        # Templates ask whether there is any text, so an empty one stays.
        if not text or value is None or type(value) in (bool, int, float):
            return value
        if text not in known:
            self._texts.append(text)
            known[text] = f'{self._prefix}{len(self._texts) - 1:04x}"'
        return known[text]

    def _hide_item(self, key: Any, item: Any, known: dict[str, str]) -> Any:
        """What belongs to a key; types stay as they are, and so do names of keys that stay."""
        if key == "type" and isinstance(item, str) and item in _KINDS:
            return item
        if key == "required" and isinstance(item, list | tuple):
            return [
                name if isinstance(name, str) and name in self._names else self._hide(name, known)
                for name in item
            ]
        return self._hide(item, known)

    def survives(self, hidden: Any, rendered: str) -> bool:
        """Whether the template has kept any text of `hidden`, if it has one."""
        stand_ins = re.findall(rf"{self._prefix}[0-9a-f]{{4,}}", repr(hidden))
        return not stand_ins or any(stand_in in rendered for stand_in in stand_ins)

    def reveal(self, rendered: str) -> list[str]:
        """Splits into the template's words and outside text, by turns; the first and last are its.

        Raises:
            ChatTemplateError: The template has altered a stand-in beyond recognition.
        """
        pieces, end = [], 0
        for found in self._form.finditer(rendered):
            text = self._texts[int(found[1], 16)]
            for _ in range(len(found[2]).bit_length()):  # 0, 1, 3, 7, ... backslashes
                text = json.dumps(text, ensure_ascii=False)[1:-1]
            pieces += [rendered[end : found.start()], text]
            end = found.end()
        pieces.append(rendered[end:])
        if any(self._prefix.lower() in words.lower() for words in pieces[::2]):
            raise ChatTemplateError(
                "The model's chat template rewrites what it is given, so text from outside cannot "
                "be kept apart from control tokens: set another tokenizer.chat_template."
            )
        return pieces


def check_messages(messages: Sequence[Any]) -> list[Message]:
    """The messages, with an empty text where one that calls tools has none.

    Raises:
        InvalidMessageError: There is none, or one without a known role or without text.
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
    """The forms in which a template may take a conversation, the truest first."""
    folded = _fold(messages)
    merged = _merge(folded)
    variants = [list(messages), _merge(messages), folded, merged, _begin(merged)]
    return [variant for n, variant in enumerate(variants) if variant not in variants[:n]]


def _fold(messages: Sequence[Message]) -> list[Message]:
    """Moves system text to the head of the next user message, or into one of its own at the end."""
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


def _begin(messages: Sequence[Message]) -> list[Message]:
    """Lets a user who says nothing speak first."""
    begun = messages[0]["role"] == "user"
    return [*([] if begun else [{"role": "user", "content": ""}]), *messages]


def _merge(messages: Sequence[Message]) -> list[Message]:
    """Joins neighbours of one role that hold nothing but text."""
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
