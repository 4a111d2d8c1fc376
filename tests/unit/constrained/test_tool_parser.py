"""Calls read from a reply as it grows: in any pieces, of any form, between any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.langchain.responses import ToolCallParser
from hogwild_agents.team.tool_format import ToolCallFormat
from tests.unit.team.tool_formats import FORMATS, calls

many = settings(max_examples=60, deadline=None, derandomize=True)
each = pytest.mark.parametrize("name", FORMATS)
Read = tuple[str, list[tuple[str, str]]]


def joined(pieces: Sequence[Any]) -> Read:
    """Pieces as text, and as names and arguments of calls."""
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    found: dict[int, list[str]] = {}
    for piece in pieces:
        if not isinstance(piece, str):
            assert (piece["name"] is None) == (piece["id"] is None) == (piece["index"] in found)
            call = found.setdefault(piece["index"], ["", ""])
            call[0] += piece["name"] or ""
            call[1] += piece["args"]
    assert [*found] == [*range(len(found))]
    return text, [(name, given) for name, given in found.values()]


def read(form: ToolCallFormat | None, *parts: str) -> Read:
    """A reply that comes in parts."""
    reader = ToolCallParser(form)
    pieces = [piece for part in parts for piece in reader.push(part)]
    return joined([*pieces, *reader.flush()])


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in parts."""
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


places = st.lists(st.integers(0, 10**6), max_size=12)
nasty = st.sampled_from([part for form in FORMATS.values() for part in form[:4] if part])
broken = st.builds(lambda text, size: text[:size], nasty, st.integers(0, 40))
prose = st.lists(st.text(max_size=6) | broken | st.sampled_from(["{", "}", "<", "\n", '"']))


@each
@many
@given(parts=st.lists(prose.map("".join) | nasty, max_size=6), places=places)
def test_in_any_pieces_as_at_once(name: str, parts: list[str], places: list[int]) -> None:
    """Whatever a model writes, also what is no call, or half of one."""
    text = "".join(parts)
    assert read(FORMATS[name], *cut(text, places)) == read(FORMATS[name], text)


@each
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
    text, found = read(form, *cut(before + written, places))
    assert text == (before.rstrip() if made else before)
    assert [(name, json.loads(given)) for name, given in found] == made


@each
@many
@given(text=prose.map("".join), places=places)
def test_text_is_left_alone(name: str, text: str, places: list[int]) -> None:
    """Every letter of it, if it holds no call."""
    if FORMATS[name].opening not in text:
        assert read(FORMATS[name], *cut(text, places)) == (text, [])
    assert read(None, *cut(text, places)) == (text, [])


@pytest.mark.parametrize("name", ["qwen", "mistral", "deepseek", "llama"])
def test_arguments_come_as_they_are_written(name: str) -> None:
    """Not only when a call is whole; and nothing is held back but what may be a mark."""
    form = FORMATS[name]
    given_one = {"a": 'b{"[]}\\" \\', "c": [{"d": "}"}], "e": {}}
    reader = ToolCallParser(form)
    written = form.write([("f", given_one)])
    seen = ""
    for at, letter in enumerate(written):
        for piece in reader.push(letter):
            assert not isinstance(piece, str)
            seen += piece["args"] or ""
        begun = written.index("{", len(form.opening))
        end = begun + len(json.dumps(given_one))
        assert len(seen) == max(0, min(at + 1, end) - begun)
    assert json.loads(seen) == given_one


def test_text_around_calls() -> None:
    """Before and after them; white space between is theirs."""
    form = FORMATS["qwen"]
    one, two = form.write([("f", {})]), form.write([("g", {"a": 1})])
    assert read(form, f"So:\n\n{one}") == ("So:", [("f", "{}")])
    assert read(form, f"{one}\n{two}") == ("", [("f", "{}"), ("g", '{"a": 1}')])
    text, found = read(form, f"So: {one} And {two} Done.")
    assert text.split() == ["So:", "And", "Done."]
    assert found == [("f", "{}"), ("g", '{"a": 1}')]


@each
def test_nothing_is_lost_of_a_name_that_was_cut_off(name: str) -> None:
    """What was held back while it might have become a call is text after all."""
    form = FORMATS[name]
    text, found = read(form, "Hm. " + form.opening + "nam")
    assert found == []
    assert "".join(text.split()) == "".join(("Hm. " + form.opening + "nam").split())
