"""Reads tool calls from a reply while it is being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hogwild_agents.team.tool_format import ToolCallFormat


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: Number of the call in the reply, from 0 on.
        name: The tool's name in the first piece of a call, None in all others.
        arguments: The next part of the arguments, which together are a JSON object.
    """

    index: int
    name: str | None = None
    arguments: str = ""


ReplyDelta: TypeAlias = str | ToolCallDelta
"""A piece of a reply: some of its text, or of a tool call."""


class ToolCallParser:
    """Splits a growing reply into text and tool calls.

    Text that may still turn out to be the beginning of a call is held back until that is certain,
    and so is white space that may stand before a call. Arguments are passed on at once.

    Args:
        tool_format: How the model writes calls; None if the reply is all text.
    """

    def __init__(self, tool_format: ToolCallFormat | None) -> None:
        self._format = tool_format
        self._state: Literal["text", "name", "arguments", "between"] = "text"
        self._buffer = ""
        self._index = -1
        self._depth = 0
        self._in_string = self._escaped = False

    def push(self, text: str) -> Iterator[ReplyDelta]:
        """Takes more of the reply, and gives the text and the pieces of calls that are certain."""
        if self._format is None:
            if text:
                yield text
            return
        self._buffer += text
        readers: dict[str, Callable[[ToolCallFormat], Iterator[ReplyDelta]]] = {
            "text": self._read_text,
            "name": self._read_name,
            "arguments": self._read_arguments,
            "between": self._read_between,
        }
        while True:
            before = self._state, self._buffer
            yield from readers[self._state](self._format)
            if before == (self._state, self._buffer):
                return

    def flush(self) -> Iterator[str]:
        """Gives the text that was held back, once the reply has ended."""
        text, self._buffer = self._buffer, ""
        if self._state == "name" and self._format is not None:  # the call's name never came
            text = self._format.opening + text
        if self._state in ("text", "name") and text:
            yield text

    @property
    def cut(self) -> bool:
        """Whether the reply so far ends within a call."""
        return self._state == "arguments"

    def _read_text(self, tool_format: ToolCallFormat) -> Iterator[str]:
        text, opening, rest = self._buffer.partition(tool_format.opening)
        if opening:
            self._state, self._buffer = "name", rest
            text = text.rstrip()
        else:
            text = self._buffer[: len(self._buffer) - self._opening_at_end(tool_format)].rstrip()
            self._buffer = self._buffer[len(text) :]
        if text:
            yield text

    def _opening_at_end(self, tool_format: ToolCallFormat) -> int:
        """How many characters at the end of the buffer may begin a call."""
        opening = tool_format.opening
        sizes = range(len(opening) - 1, 0, -1)
        return next((size for size in sizes if self._buffer.endswith(opening[:size])), 0)

    def _read_name(self, tool_format: ToolCallFormat) -> Iterator[ToolCallDelta]:
        name, between, rest = self._buffer.partition(tool_format.between)
        if between:
            self._state, self._buffer = "arguments", rest
            self._index += 1
            yield ToolCallDelta(self._index, name=name)

    def _read_arguments(self, _: ToolCallFormat) -> Iterator[ToolCallDelta]:
        end = self._end_of_arguments()
        arguments, self._buffer = self._buffer[:end], self._buffer[end:]
        if arguments:
            yield ToolCallDelta(self._index, arguments=arguments)

    def _end_of_arguments(self) -> int:
        """The place after the JSON object, or the buffer's length if it does not hold the end."""
        for place, character in enumerate(self._buffer):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            else:
                self._in_string = character == '"'
                self._depth += (character in "{[") - (character in "}]")
                if self._depth == 0:
                    self._state = "between"
                    return place + 1
        return len(self._buffer)

    def _read_between(self, tool_format: ToolCallFormat) -> Iterator[ReplyDelta]:
        """After a call: another one, or the end of all calls."""
        link = tool_format.link or tool_format.closing
        if tool_format.link is not None and self._buffer.startswith(link):
            self._state, self._buffer = "name", self._buffer[len(link) :]
        elif not link.startswith(self._buffer) and self._buffer.startswith(tool_format.closing):
            self._state, self._buffer = "text", self._buffer[len(tool_format.closing) :]
        yield from ()
