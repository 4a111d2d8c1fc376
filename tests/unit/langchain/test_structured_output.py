"""Structured output: every method, kind of schema and option, of models without a mind."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from pydantic import BaseModel, Field, field_validator
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from hogwild_agents.langchain.errors import InvalidRequestError
from tests.unit.langchain.requests import RAW, Ticket
from tests.unit.small_models import chat


class OldTicket(BaseModelV1):
    """A ticket of the first pydantic."""

    title: str
    seats: int
    price: float = 1.0


class DictTicket(TypedDict):
    """A ticket as a dict."""

    title: Annotated[str, ..., "What it is about."]
    seats: list[int]


JSON_TICKET = {
    "title": "Ticket",
    "description": "A ticket.",
    "type": "object",
    "properties": {"title": {"type": "string"}, "seats": {"type": "integer"}},
    "required": ["title", "seats"],
}
BARE_TICKET = {key: JSON_TICKET[key] for key in ("type", "properties", "required")}

SCHEMAS: dict[str, Any] = {
    "pydantic": Ticket,
    "pydantic_v1": OldTicket,
    "typed_dict": DictTicket,
    "json": JSON_TICKET,
    "untitled": BARE_TICKET,
    "tool": {"name": "ticket", "description": "A ticket.", "parameters": BARE_TICKET},
}
METHODS: tuple[Any, ...] = ("json_schema", "function_calling", "json_mode")


def is_ticket(value: Any, kind: str) -> bool:
    """Whether this is what a schema promises."""
    schema = SCHEMAS[kind]
    if kind.startswith("pydantic"):
        return isinstance(value, schema)
    return isinstance(value, dict) and value.keys() == {"title", "seats"}


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_method_and_kind(kind: str, method: Any, strict: bool | None) -> None:
    """Always fits, also of a random model, and however little it may write."""
    model = chat(workers=1, temperature=1.0, max_tokens=30)
    structured = model.with_structured_output(SCHEMAS[kind], method=method, strict=strict)
    for seed in range(2):
        assert is_ticket(structured.invoke("A ticket!", seed=seed), kind)
    raw = model.with_structured_output(
        SCHEMAS[kind], method=method, strict=strict, include_raw=True
    ).invoke("A ticket!", max_tokens=1)
    assert raw.keys() == {"raw", "parsed", "parsing_error"}
    assert isinstance(raw["raw"], AIMessage)
    assert raw["parsing_error"] is None
    assert is_ticket(raw["parsed"], kind)
    if method == "function_calling":
        assert len(raw["raw"].tool_calls) == 1
    else:
        assert json.loads(raw["raw"].text)


@pytest.mark.parametrize("name", ["llama", "thinker", "bare"])
@pytest.mark.parametrize("method", METHODS)
def test_other_models(name: str, method: Any) -> None:
    """With two workers, who think freely before."""
    structured = chat(name, temperature=1.0, seed=1).with_structured_output(Ticket, method=method)
    assert isinstance(structured.invoke("A ticket!"), Ticket)


@pytest.mark.parametrize("method", METHODS)
def test_streams_and_batches(method: Any) -> None:
    """Pieces grow to the whole; many at once; with asyncio."""

    async def later() -> list[Any]:
        return [
            await structured.ainvoke("A ticket!"),
            *await structured.abatch(["A ticket!"] * 2),
            [piece async for piece in structured.astream("A ticket!")][-1],
        ]

    model = chat(workers=1, temperature=1.0, seed=1, max_tokens=30)
    structured = model.with_structured_output(JSON_TICKET, method=method)
    expected = structured.invoke("A ticket!")
    assert list(structured.stream("A ticket!"))[-1] == expected
    assert structured.batch(["A ticket!"] * 2) == [expected] * 2
    assert asyncio.run(later()) == [expected] * 4


class Never(BaseModel):
    """What no grammar knows to be wrong."""

    number: int

    @field_validator("number")
    @classmethod
    def _refuse(cls, _: int) -> int:
        raise ValueError("never right")


@pytest.mark.parametrize("method", METHODS)
def test_what_only_python_can_refuse(method: Any) -> None:
    """Is raised, or told beside the raw message."""
    model = chat(workers=1)
    with pytest.raises((OutputParserException, ValueError), match="never right"):
        model.with_structured_output(Never, method=method).invoke("Hi.")
    told = model.with_structured_output(Never, method=method, include_raw=True).invoke("Hi.")
    assert told["parsed"] is None
    assert "never right" in str(told["parsing_error"])
    assert isinstance(told["raw"], AIMessage)


def test_thinking_before_it_is_free() -> None:
    """The message shows it; the parser never does."""
    model = chat(temperature=1.0, seed=1)
    told = model.with_structured_output(Ticket, include_raw=True).invoke("A ticket!")
    assert [block["type"] for block in told["raw"].content_blocks] == ["reasoning"] * 2 + ["text"]
    assert told["raw"].response_metadata["passes"] == 6
    assert isinstance(told["parsed"], Ticket)


def test_what_the_model_is_told() -> None:
    """The schema, but for `json_mode`, where you tell it; never an empty one."""
    model = chat(workers=1)

    def told(method: Any) -> int:
        structured = model.with_structured_output(JSON_TICKET, method=method, include_raw=True)
        usage = structured.invoke("A ticket!")["raw"].usage_metadata
        return int(usage["input_tokens"])

    plain = model.invoke("A ticket!").usage_metadata
    assert plain is not None
    assert told("json_mode") == plain["input_tokens"]
    assert told("json_schema") > plain["input_tokens"] + 30
    assert told("function_calling") > plain["input_tokens"] + 30


def test_options_pass_on() -> None:
    """To every call."""
    model = chat(workers=1)
    structured = model.with_structured_output(Ticket, include_raw=True, workers=3, budget=2)
    about = structured.invoke("A ticket!")["raw"].response_metadata
    assert (len(about["workers"]), about["passes"]) == (3, 2)


@pytest.mark.parametrize("tools", [True, False])
def test_beside_tools(tools: bool) -> None:
    """A schema and tools: a call, or what fits."""
    model = chat(workers=1, temperature=1.0, max_tokens=30)
    options: dict[str, Any] = {"tools": [RAW]} if tools else {}
    structured = model.with_structured_output(Ticket, include_raw=True, **options)
    for seed in range(4):
        told = structured.invoke("A ticket!", seed=seed)
        if told["raw"].tool_calls:
            assert tools
            assert told["raw"].tool_calls[0]["name"] == "power"
        else:
            assert isinstance(told["parsed"], Ticket)


FAR = {
    "title": "Far",
    "type": "object",
    "properties": {
        "s": {"type": "array", "items": {"type": "integer"}, "minItems": 400},
        "z": {"type": "string"},
    },
    "required": ["s", "z"],
}


class Far(BaseModel):
    """Too much for few tokens."""

    s: list[int] = Field(min_length=400)
    z: str


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [FAR, Far], ids=["json", "pydantic"])
def test_a_reply_that_was_cut(schema: Any, method: Any) -> None:
    """Never parses: neither at once nor in pieces, and it is told beside the raw message."""
    model = chat(workers=1, temperature=1.0, seed=1, max_tokens=9)
    structured = model.with_structured_output(schema, method=method)
    with pytest.raises(OutputParserException, match=r"cut: max_tokens .* Raise max_tokens"):
        structured.invoke("Much!")
    with pytest.raises(OutputParserException, match="Raise max_tokens"):
        asyncio.run(structured.ainvoke("Much!"))
    with pytest.raises(OutputParserException, match="Raise max_tokens"):
        list(structured.stream("Much!"))
    told = model.with_structured_output(schema, method=method, include_raw=True).invoke("Much!")
    assert told["parsed"] is None
    assert isinstance(told["parsing_error"], OutputParserException)
    assert told["raw"].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("method", METHODS)
def test_pieces_come_before_the_cut(method: Any) -> None:
    """As LangChain streams them."""
    model = chat(workers=1, temperature=1.0, seed=1, max_tokens=40)
    stream = model.with_structured_output(FAR, method=method).stream("Much!")
    assert "s" in next(piece for piece in stream if piece)
    with pytest.raises(OutputParserException, match="Raise max_tokens"):
        list(stream)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "part",
    [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "format": "email"},
        {"type": "string", "pattern": "abc"},
    ],
    ids=["number", "format", "pattern"],
)
def test_however_little_it_may_write(part: Any, method: Any) -> None:
    """What must follow a limited part is there."""
    schema: dict[str, Any] = {"title": "M", "type": "object", "required": ["y", "z"]}
    schema["properties"] = {"y": part, "z": {"type": "string"}}
    for limit in (1, 12, 20):
        model = chat(workers=1, max_tokens=limit)
        assert model.with_structured_output(schema, method=method).invoke("x").keys() == {"y", "z"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("part", "words"),
    [({"$ref": "#"}, "no finite text fits it"), ({"pattern": "(?=a)b"}, "look-ahead")],
)
def test_schemas_that_cannot_be(part: Any, words: str, method: Any) -> None:
    """Are refused where they are bound, with the part that is to blame."""
    schema: dict[str, Any] = {"title": "X", "type": "object", "required": ["a"]}
    schema["properties"] = {"a": {"type": "string", **part} if "pattern" in part else part}
    with pytest.raises(InvalidRequestError, match=words) as caught:
        chat().with_structured_output(schema, method=method)
    assert "#/properties/a" in str(caught.value)


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    """A dog."""

    kind: Literal["dog"]
    tricks: list[str]


class Pet(BaseModel):
    """A pet, with more of its kind."""

    animal: Annotated[Cat | Dog, Field(discriminator="kind")]
    friends: list[Pet] = []


@pytest.mark.parametrize("method", METHODS)
def test_unions_and_recursion(method: Any) -> None:
    """As pydantic writes them."""
    model = chat(workers=1, temperature=1.0, max_tokens=8)
    structured = model.with_structured_output(Pet, method=method)
    for seed in range(6):
        assert isinstance(structured.invoke("A pet!", seed=seed), Pet)


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        ("Ticket", {}),
        (None, {}),
        (42, {}),
        ([Ticket], {}),
        (Ticket, {"method": "yaml"}),
        (int, {}),
    ],
    ids=repr,
)
def test_what_is_no_schema(schema: Any, options: dict[str, Any]) -> None:
    """Is refused where it is bound, in words."""
    with pytest.raises(InvalidRequestError):
        chat().with_structured_output(schema, **options)
