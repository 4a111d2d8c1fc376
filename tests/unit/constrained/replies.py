"""Replies with tool calls: cut into parts, and read by the parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import strategies as st

from hogwild_agents.constrained.tool_parser import ReplyDelta, ToolCallDelta, ToolCallParser
from hogwild_agents.team.tool_format import ToolCallFormat
from tests.unit.team.tool_formats import FORMATS

Parsed: TypeAlias = tuple[str, list[tuple[str, str]]]
"""A reply's text, and the name and arguments of each call."""

each_format = pytest.mark.parametrize("name", FORMATS)
places = st.lists(st.integers(0, 10**6), max_size=12)


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in parts."""
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def parse(tool_format: ToolCallFormat | None, *parts: str) -> Parsed:
    """What the parser makes of a reply that comes in parts."""
    parser = ToolCallParser(tool_format)
    deltas = [delta for part in parts for delta in parser.push(part)]
    return joined([*deltas, *parser.flush()])


def joined(deltas: Sequence[ReplyDelta]) -> Parsed:
    """The text and the calls of all pieces together; only a call's first piece has its name."""
    text = "".join(delta for delta in deltas if isinstance(delta, str))
    calls: dict[int, tuple[str, str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            assert (delta.name is None) == (delta.index in calls)
            name, arguments = calls.get(delta.index, (delta.name or "", ""))
            calls[delta.index] = name, arguments + delta.arguments
    assert [*calls] == [*range(len(calls))]
    return text, [*calls.values()]
