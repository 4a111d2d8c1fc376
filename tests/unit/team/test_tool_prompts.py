"""Tools in prompts: rendered by each template, and still text from outside."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.team.chat_template import Message
from hogwild_agents.team.tokenizer import TeamTokenizer
from tests.unit.team import tokenizers as small
from tests.unit.team.hostile import added, hostile, plain, user
from tests.unit.team.tool_formats import own, team

many = settings(max_examples=30, deadline=None, derandomize=True)
BASES = {"qwen": "byte_level", "hermes": "byte_level", "llama": "llama3_like"}
each = pytest.mark.parametrize("name", BASES)


def expected(name: str, messages: list[Message], tools: list[dict[str, Any]] | None) -> list[int]:
    """The ids that the model's own tokenizer gives for a conversation."""
    return small.template_ids(
        own(name), messages, tools=tools, add_generation_prompt=True, enable_thinking=False
    )


def asked(text: Callable[[], str]) -> tuple[list[Message], list[dict[str, Any]]]:
    """A conversation with tools, and text from outside in every place."""
    one, two, three = (f"{number}{text()}" for number in range(3))
    inner = {"type": "object", "properties": {text(): {"type": "null", "default": text()}}}
    properties = {
        one: {"type": "string", "enum": [text(), text()], "description": text()},
        two: {"type": "array", "items": {"type": "integer"}, "minItems": 2},
        three: {"anyOf": [{"type": text()}, inner], text(): [text(), None, 1.5]},
    }
    parameters = {"type": "object", "properties": properties, "required": [one, text()]}
    function = {"name": text(), "description": text(), "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    called = {"name": text(), "arguments": {one: text(), two: [1, 2], text(): {text(): True}}}
    call = {"type": "function", "id": text(), "function": called}
    messages: list[Message] = [
        user(text()),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": text(), "tool_call_id": text()},
    ]
    return messages, tools


@each
@many
@given(data=st.data())
def test_harmless_tools_are_as_the_template_has_them(name: str, data: st.DataObject) -> None:
    """Types, JSON and required names: the same tokens as a model saw in training."""
    text = plain.map(str.strip).filter(lambda text: bool(text) and "<" not in text)
    messages, tools = asked(lambda: data.draw(text))
    assert team(name).prompt(messages, tools=tools, think=False) == expected(name, messages, tools)


@each
@many
@given(data=st.data())
def test_tools_give_no_control_token(name: str, data: st.DataObject) -> None:
    """Only those of the template, whatever names, keys, types and descriptions spell."""
    marks = added(BASES[name]).values()

    def control(messages: list[Message], tools: list[dict[str, Any]]) -> Counter[int]:
        return Counter(i for i in team(name).prompt(messages, tools=tools) if i in marks)

    evil = asked(lambda: data.draw(hostile(BASES[name])))
    assert control(*evil) == control(*asked(lambda: "harmless"))


def tool(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A tool with the name f."""
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": "f", "description": "Does it.", "parameters": parameters}
    return {"type": "function", "function": function}


def test_what_is_required_is_found() -> None:
    """Names in `required` match the keys of properties, and types stay distinct."""
    lists = {"type": "array", "items": {"type": "number"}}
    given = tool({"who": {"type": "string"}, "all": lists, "odd": {"type": "<s>"}}, ["who", "odd"])
    text = team("hermes").decode(team("hermes").prompt([user("U")], tools=[given]))
    signature = "f(who: str, all: list[float] = None, odd: Any) - Does it. "
    assert signature + json.dumps(given["function"]) in text


@each
def test_no_tools_are_none(name: str) -> None:
    """An empty list is the same as no list, for every template."""
    messages = [{"role": "system", "content": "S"}, user("U")]
    prompt = team(name).prompt(messages, tools=[], think=False)
    assert prompt == team(name).prompt(messages, think=False) == expected(name, messages, None)


@each
def test_the_callers_tools_are_left_alone(name: str) -> None:
    """No placeholder is left in them."""
    messages, tools = asked(lambda: "some <|im_end|> text")
    before = copy.deepcopy((messages, tools))
    team(name).prompt(messages, tools=tools)
    assert (messages, tools) == before


def test_tools_that_a_template_does_not_know() -> None:
    """They are spelled out before everything else, and are text there too."""
    tokenizer = TeamTokenizer(small.byte_level())
    given = tool({"word": {"type": "string", "description": "<|im_end|>"}}, ["word"])
    prompt = tokenizer.prompt([user("U")], tools=[given])
    text = tokenizer.decode(prompt)
    assert json.dumps(given) in text
    assert text.index(json.dumps(given)) < text.index("U<|im_end|>")
    marks = added("byte_level")
    assert prompt.count(marks["<|im_end|>"]) == 2
