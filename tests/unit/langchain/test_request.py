"""Forms: what a reply must look like, from tools, a choice among them, and a schema."""

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
from hogwild_agents.langchain.request import ReplyFormat, form_of
from hogwild_agents.team.tool_format import HERMES
from tests.unit.constrained.schemas import ADD, compiler, read, scribble


@tool
def add(a: int, b: int = 0) -> int:
    """Adds two numbers."""
    return a + b


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


RAW = {"name": "power", "description": "Raises.", "parameters": ADD}
TOOLS: list[Any] = [add, multiply, Divide, Root, RAW, {"type": "function", "function": RAW}]
NAMES = ["add", "multiply", "Divide", "Root", "power", "power"]
SCHEMA = {
    "title": "T",
    "type": "object",
    "properties": {"title": {"type": "string", "title": "Ti"}},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA}}


def refused(*words: str, **arguments: Any) -> None:
    """Asserts that a call's arguments are refused, in words that tell which and why."""
    with pytest.raises(InvalidRequestError) as caught:
        form_of(**arguments)
    assert isinstance(caught.value, HogwildError)
    assert isinstance(caught.value, ModelInvalidRequestError)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# Tools.


@pytest.mark.parametrize(("given", "name"), [*zip(TOOLS, NAMES, strict=True)], ids=NAMES)
def test_tools_of_every_kind(given: Any, name: str) -> None:
    """Tools, functions, classes, dicts: all are told as chat templates take them."""
    form = form_of([given])
    (told,) = form.tools
    assert told["type"] == "function"
    assert told["function"]["name"] == name
    assert told["function"]["parameters"]["type"] == "object"
    assert form.callable == (name,)
    assert not form.forced
    assert not form.free


def test_a_tool_without_arguments() -> None:
    """Can be called, with none."""
    form = form_of([{"name": "now", "description": "Tells the time."}], "any", None, False)
    text, calls = read(scribble(form.grammar(compiler("bytes"), HERMES), "bytes", 9, 0), "bytes")
    assert (text, [(call["name"], call["args"]) for call in calls]) == ("", [("now", {})])


@pytest.mark.parametrize(
    "given",
    [
        42,
        "add",
        None,
        {"type": "web_search_preview"},
        {"type": "weird"},
        {"type": "function", "function": {"name": ""}},
        {"type": "function", "function": {"name": "a<|im_end|>"}},
        {"type": "function", "function": {"name": 'a"b'}},
        {"type": "function", "function": {"name": "a b\n"}},
        {"type": "function", "function": {}},
    ],
    ids=repr,
)
def test_what_is_no_tool(given: Any) -> None:
    """Is refused, and not with some error from within."""
    with pytest.raises(HogwildError) as caught, as_langchain_errors():
        form_of([given])
    assert isinstance(caught.value, InvalidRequestError)


def test_two_tools_of_one_name() -> None:
    with pytest.raises(InvalidRequestError, match="Two tools are called 'power'"):
        form_of(TOOLS).grammar(compiler("bytes"), HERMES)


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
    (told,) = form_of([given]).tools
    grammar = compiler("bytes").compile_schema(told["function"]["parameters"])
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
    assert form_of(tools, "power").callable == ("power",)
    assert form_of(tools, "none").free


# Choices.


@pytest.mark.parametrize(
    "choice",
    ["auto", None, False, {"type": "auto"}, {"type": "function", "name": "auto"}],
    ids=repr,
)
def test_the_model_decides(choice: Any) -> None:
    form = form_of([add, multiply], choice)
    assert (form.callable, form.forced, form.several) == (("add", "multiply"), False, True)


@pytest.mark.parametrize("choice", ["any", "required", True, {"type": "any"}], ids=repr)
def test_there_must_be_a_call(choice: Any) -> None:
    form = form_of([add, multiply], choice)
    assert (form.callable, form.forced, form.several) == (("add", "multiply"), True, True)


@pytest.mark.parametrize("choice", ["none", {"type": "none"}], ids=repr)
def test_there_must_be_none(choice: Any) -> None:
    """The model is not even told of tools."""
    form = form_of([add, multiply], choice)
    assert form.free
    assert (form.tools, form.callable) == ((), ())


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
    form = form_of([add, multiply], choice)
    assert (form.callable, form.forced, form.several) == (("multiply",), True, False)
    assert len(form.tools) == 2


def test_one_call_at_most() -> None:
    assert not form_of([add], parallel_tool_calls=False).several
    assert form_of([add], parallel_tool_calls=True).several


@pytest.mark.parametrize(
    "choice",
    ["sub", "Add", 1.5, ["add"], {"type": "function", "function": {"name": "x"}}],
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
    assert form_of([], choice).free
    assert form_of(None, choice).free


# Schemas.


def test_schemas() -> None:
    """What a reply without a call must fit."""
    assert form_of(response_format=FORMAT).schema == SCHEMA
    assert form_of(response_format={"type": "json_object"}).schema == {"type": "object"}
    assert form_of(response_format={"type": "text"}).free
    assert form_of(response_format=None).free
    both = form_of([add], None, FORMAT)
    assert (both.callable, both.schema) == (("add",), SCHEMA)
    assert form_of([add], "any", FORMAT).schema is None
    only = form_of([add], "none", FORMAT)
    assert (only.callable, only.schema) == ((), SCHEMA)


@pytest.mark.parametrize(
    "given",
    [
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "t"}},
        {"type": "json_schema", "json_schema": {"schema": "x"}},
        SCHEMA,
        Divide,
        5,
    ],
    ids=repr,
)
def test_formats_that_are_not_understood(given: Any) -> None:
    refused("response_format=", "with_structured_output", response_format=given)


def test_what_the_model_is_told_of_a_schema() -> None:
    """What tells it something; names of properties stay, whatever they are."""
    told = form_of(response_format=FORMAT).told
    essence = json.loads(told[told.index("{") :])
    assert essence == {"type": "object", "properties": {"title": {"type": "string"}}}
    assert form_of([add], None, FORMAT).told == told
    assert form_of([add]).told == form_of([add], "any", FORMAT).told == ReplyFormat().told == ""


def test_the_same_words_whoever_wrote_it() -> None:
    """The order of a schema's keys is no part of it."""
    other = {"properties": SCHEMA["properties"], "additionalProperties": False, "type": "object"}
    formats = [{"type": "json_schema", "json_schema": {"schema": one}} for one in (SCHEMA, other)]
    assert form_of(response_format=formats[0]).told == form_of(response_format=formats[1]).told


def test_nothing_given_is_changed() -> None:
    """Schemas are the caller's."""
    before = json.dumps([SCHEMA, FORMAT, RAW])
    form = form_of([RAW], None, FORMAT)
    assert form.told
    form.grammar(compiler("bytes"), HERMES)
    assert json.dumps([SCHEMA, FORMAT, RAW]) == before
