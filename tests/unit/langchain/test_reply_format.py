"""What a reply must look like, from tools, a choice among them, and a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import InvalidRequestError, as_langchain_errors
from hogwild_agents.langchain.reply_format import ReplyFormat, parse_reply_format
from hogwild_agents.team.tool_format import HERMES
from tests.unit.constrained.schemas import compiler, read, scribble
from tests.unit.langchain.requests import FORMAT, RAW, SCHEMA, add


def multiply(a: int, b: int) -> int:
    """Multiplies two numbers.

    Args:
        a: One.
        b: The other.
    """
    return a * b


class Divide(BaseModel):
    """Divides two numbers."""

    above: float = Field(description="What is divided.")
    below: float


class Root(TypedDict):
    """Takes a root."""

    of: float


TOOLS: list[Any] = [add, multiply, Divide, Root, RAW, {"type": "function", "function": RAW}]
NAMES = ["add", "multiply", "Divide", "Root", "power", "power"]


def refused(*words: str, **arguments: Any) -> None:
    """Asserts that a call's arguments are refused, in words that tell which and why."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_reply_format(**arguments)
    assert isinstance(caught.value, HogwildError)
    assert isinstance(caught.value, ModelInvalidRequestError)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# Tools.


@pytest.mark.parametrize(("given", "name"), [*zip(TOOLS, NAMES, strict=True)], ids=NAMES)
def test_tools_of_every_kind(given: Any, name: str) -> None:
    """Tools, functions, classes, dicts: all are told as chat templates take them."""
    reply_format = parse_reply_format([given])
    (shown,) = reply_format.tools
    assert shown["type"] == "function"
    assert shown["function"]["name"] == name
    assert shown["function"]["parameters"]["type"] == "object"
    assert reply_format.callable == (name,)
    assert not reply_format.forced
    assert not reply_format.free


def test_a_tool_without_arguments() -> None:
    """Can be called, with none."""
    reply_format = parse_reply_format(
        [{"name": "now", "description": "Tells the time."}], "any", None, False
    )
    text, calls = read(
        scribble(reply_format.grammar(compiler("bytes"), HERMES), "bytes", 9, 0), "bytes"
    )
    assert (text, calls) == ("", [("now", {})])


@pytest.mark.parametrize(
    "given",
    [
        42,
        "add",
        {"type": "web_search_preview"},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": "a<|im_end|>"}},
    ],
    ids=repr,
)
def test_what_is_no_tool(given: Any) -> None:
    """Is refused, and not with some error from within."""
    with pytest.raises(HogwildError) as caught, as_langchain_errors():
        parse_reply_format([given])
    assert isinstance(caught.value, InvalidRequestError)


def test_two_tools_of_one_name() -> None:
    with pytest.raises(InvalidRequestError, match="Two tools are called 'power'"):
        parse_reply_format(TOOLS).grammar(compiler("bytes"), HERMES)


class Tree(BaseModel):
    """A tree."""

    name: str
    kids: list[Tree] = []


class Holder(BaseModel):
    """Holds a tree, and anything."""

    tree: Tree
    more: Any


@tool
def plant(tree: Tree) -> str:
    """Plants a tree."""
    return tree.name


@pytest.mark.parametrize("given", [Tree, Holder, plant], ids=["class", "holder", "tool"])
def test_classes_that_hold_themselves(given: Any) -> None:
    """Their calls do, too: LangChain's conversion would allow anything there."""
    (shown,) = parse_reply_format([given]).tools
    grammar = compiler("bytes").compile_schema(shown["function"]["parameters"])
    around = "{}" if given is Tree else '{"tree": {}' + (', "more": 1}' if given is Holder else "}")
    for kid, fits in [('{"name": "b", "kids": []}', True), ('"b"', False), ("[]", False)]:
        text = around.replace("{}", f'{{"name": "a", "kids": [{kid}]}}')
        ids = [*text.encode()]
        guide = grammar.guide()
        assert (guide._matcher.validate_tokens(ids) == len(ids)) == fits, text


def test_tools_that_cannot_be() -> None:
    """Are refused when they are bound, by name; those that are not called do not matter."""
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}
    tools = [RAW, {"name": "look", "description": "Looks.", "parameters": bad}]
    refused("The tool 'look'", "look-ahead", "#/properties/a", tools=tools)
    refused("The tool 'look'", tools=tools, tool_choice="look")
    assert parse_reply_format(tools, "power").callable == ("power",)
    assert parse_reply_format(tools, "none").free


# Choices.


@pytest.mark.parametrize(
    "choice",
    ["auto", None, False, {"type": "auto"}, {"type": "function", "name": "auto"}],
    ids=repr,
)
def test_the_model_decides(choice: Any) -> None:
    reply_format = parse_reply_format([add, multiply], choice)
    assert (reply_format.callable, reply_format.forced, reply_format.several) == (
        ("add", "multiply"),
        False,
        True,
    )


@pytest.mark.parametrize("choice", ["any", "required", True, {"type": "any"}], ids=repr)
def test_there_must_be_a_call(choice: Any) -> None:
    reply_format = parse_reply_format([add, multiply], choice)
    assert (reply_format.callable, reply_format.forced, reply_format.several) == (
        ("add", "multiply"),
        True,
        True,
    )


@pytest.mark.parametrize("choice", ["none", {"type": "none"}], ids=repr)
def test_there_must_be_none(choice: Any) -> None:
    """The model is not even told of tools."""
    reply_format = parse_reply_format([add, multiply], choice)
    assert reply_format.free
    assert (reply_format.tools, reply_format.callable) == ((), ())


@pytest.mark.parametrize(
    "choice",
    [
        "multiply",
        {"type": "function", "function": {"name": "multiply"}},
        {"type": "tool", "name": "multiply"},
        {"name": "multiply"},
    ],
    ids=repr,
)
def test_one_tool_must_be_called(choice: Any) -> None:
    """Once; the model is told of all."""
    reply_format = parse_reply_format([add, multiply], choice)
    assert (reply_format.callable, reply_format.forced, reply_format.several) == (
        ("multiply",),
        True,
        False,
    )
    assert len(reply_format.tools) == 2


def test_one_call_at_most() -> None:
    assert not parse_reply_format([add], parallel_tool_calls=False).several
    assert parse_reply_format([add], parallel_tool_calls=True).several


@pytest.mark.parametrize(
    "choice",
    ["sub", 1.5, {"type": "function", "function": {"name": "x"}}],
    ids=repr,
)
def test_choices_of_nothing(choice: Any) -> None:
    refused(
        "tool_choice=", "names no tool", "add, multiply", tools=[add, multiply], tool_choice=choice
    )


@pytest.mark.parametrize("choice", ["any", True, "add", "required"], ids=repr)
def test_choices_without_tools(choice: Any) -> None:
    refused("tool_choice=", "no tools", tool_choice=choice)
    refused("tool_choice=", "no tools", tool_choice=choice, tools=[])


@pytest.mark.parametrize("choice", [None, "auto", "none", False])
def test_no_tools(choice: Any) -> None:
    """Then a reply is free."""
    assert parse_reply_format([], choice).free
    assert parse_reply_format(None, choice).free


# Schemas.


def test_schemas() -> None:
    """What a reply without a call must fit."""
    assert parse_reply_format(response_format=FORMAT).schema == SCHEMA
    assert parse_reply_format(response_format={"type": "json_object"}).schema == {"type": "object"}
    assert parse_reply_format(response_format={"type": "text"}).free
    assert parse_reply_format(response_format=None).free
    both = parse_reply_format([add], None, FORMAT)
    assert (both.callable, both.schema) == (("add",), SCHEMA)
    assert parse_reply_format([add], "any", FORMAT).schema is None
    only = parse_reply_format([add], "none", FORMAT)
    assert (only.callable, only.schema) == ((), SCHEMA)


@pytest.mark.parametrize(
    "given",
    [
        "json",
        {"type": "xml"},
        {"type": "json_schema", "json_schema": {"name": "t"}},
        {"type": "json_schema", "json_schema": {"schema": "x"}},
        SCHEMA,
        Divide,
    ],
    ids=repr,
)
def test_formats_that_are_not_understood(given: Any) -> None:
    refused("response_format=", "with_structured_output", response_format=given)


def test_what_the_model_is_told_of_a_schema() -> None:
    """What tells it something; names of properties stay, whatever they are."""
    instruction = parse_reply_format(response_format=FORMAT).instruction
    essence = json.loads(instruction[instruction.index("{") :])
    assert essence == {"type": "object", "properties": {"title": {"type": "string"}}}
    assert parse_reply_format([add], None, FORMAT).instruction == instruction
    assert (
        parse_reply_format([add]).instruction
        == parse_reply_format([add], "any", FORMAT).instruction
        == ReplyFormat().instruction
        == ""
    )


def test_the_same_words_whoever_wrote_it() -> None:
    """The order of a schema's keys is no part of it."""
    other = {"properties": SCHEMA["properties"], "additionalProperties": False, "type": "object"}
    formats = [{"type": "json_schema", "json_schema": {"schema": one}} for one in (SCHEMA, other)]
    assert (
        parse_reply_format(response_format=formats[0]).instruction
        == parse_reply_format(response_format=formats[1]).instruction
    )


def test_nothing_given_is_changed() -> None:
    """Schemas are the caller's."""
    before = json.dumps([SCHEMA, FORMAT, RAW])
    reply_format = parse_reply_format([RAW], None, FORMAT)
    assert reply_format.instruction
    reply_format.grammar(compiler("bytes"), HERMES)
    assert json.dumps([SCHEMA, FORMAT, RAW]) == before
