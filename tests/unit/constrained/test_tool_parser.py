"""Tool calls are read from a growing reply: in any parts, in any format, between any text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.constrained.tool_parser import ToolCallDelta, ToolCallParser
from tests.unit.constrained.replies import cut, each_format, parse, places
from tests.unit.team.tool_formats import FORMATS, calls

many = settings(max_examples=60, deadline=None, derandomize=True)
nasty = st.sampled_from([part for form in FORMATS.values() for part in form[:4] if part])
broken = st.builds(lambda text, size: text[:size], nasty, st.integers(0, 40))
prose = st.lists(st.text(max_size=6) | broken | st.sampled_from(["{", "}", "<", "\n", '"']))


@each_format
@many
@given(parts=st.lists(prose.map("".join) | nasty, max_size=6), places=places)
def test_in_any_pieces_as_at_once(name: str, parts: list[str], places: list[int]) -> None:
    """Whatever a model writes, also what is no call, or half of one."""
    text = "".join(parts)
    assert parse(FORMATS[name], *cut(text, places)) == parse(FORMATS[name], text)


@each_format
@many
@given(before=prose.map("".join), made=calls, places=places)
def test_calls_are_found(
    name: str, before: str, made: list[tuple[str, dict[str, Any]]], places: list[int]
) -> None:
    """After any text that is no call, with arguments of any content; nothing of them is text."""
    form = FORMATS[name]
    made = made[:1] if form.link is None else made
    written = form.write(made)
    if (before + written).find(form.opening) not in (-1, len(before)):
        before = ""
    text, parsed = parse(form, *cut(before + written, places))
    assert text == (before.rstrip() if made else before)
    assert [(tool, json.loads(arguments)) for tool, arguments in parsed] == made


@each_format
@many
@given(text=prose.map("".join), places=places)
def test_text_is_left_alone(name: str, text: str, places: list[int]) -> None:
    """Every letter of it, if it holds no call."""
    if FORMATS[name].opening not in text:
        assert parse(FORMATS[name], *cut(text, places)) == (text, [])
    assert parse(None, *cut(text, places)) == (text, [])


@pytest.mark.parametrize("name", ["qwen", "mistral", "deepseek", "llama"])
def test_arguments_come_as_they_are_written(name: str) -> None:
    """Not only when a call is whole; and nothing is held back but what may be a mark."""
    form = FORMATS[name]
    arguments = {"a": 'b{"[]}\\" \\', "c": [{"d": "}"}], "e": {}}
    parser = ToolCallParser(form)
    written = form.write([("f", arguments)])
    seen = ""
    for place, letter in enumerate(written):
        for delta in parser.push(letter):
            assert isinstance(delta, ToolCallDelta)
            seen += delta.arguments
        begun = written.index("{", len(form.opening))
        end = begun + len(json.dumps(arguments))
        assert len(seen) == max(0, min(place + 1, end) - begun)
    assert json.loads(seen) == arguments


def test_text_around_calls() -> None:
    """Before and after them; white space between is theirs."""
    form = FORMATS["qwen"]
    one, two = form.write([("f", {})]), form.write([("g", {"a": 1})])
    assert parse(form, f"So:\n\n{one}") == ("So:", [("f", "{}")])
    assert parse(form, f"{one}\n{two}") == ("", [("f", "{}"), ("g", '{"a": 1}')])
    text, parsed = parse(form, f"So: {one} And {two} Done.")
    assert text.split() == ["So:", "And", "Done."]
    assert parsed == [("f", "{}"), ("g", '{"a": 1}')]


@each_format
def test_nothing_is_lost_of_a_name_that_was_cut_off(name: str) -> None:
    """What was held back while it might have become a call is text after all."""
    form = FORMATS[name]
    text, parsed = parse(form, "Hm. " + form.opening + "nam")
    assert parsed == []
    assert "".join(text.split()) == "".join(("Hm. " + form.opening + "nam").split())
