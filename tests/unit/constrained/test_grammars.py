"""Grammars: whatever a writer would like to write, what it writes is a call, or fits a schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from hogwild_agents.constrained.grammars import Grammar, GrammarCompiler, ToolSchema
from hogwild_agents.errors import GrammarError, HogwildError
from hogwild_agents.team.tool_format import HERMES
from tests.unit.constrained import schemas
from tests.unit.constrained.schemas import (
    ADD,
    TOKENIZERS,
    Schema,
    compiler,
    fits,
    form,
    read,
    scribble,
    tokenizer,
)

every = pytest.mark.parametrize("name", TOKENIZERS)
many = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
seeds, limits = st.integers(0, 2**32), st.sampled_from([1, 8, 40])


def compiled(make: Any) -> Grammar:
    """A grammar, where there is one: some schemas allow nothing."""
    try:
        grammar: Grammar = make()
    except GrammarError as error:
        if "unsatisfiable" not in str(error).lower():
            raise
        reject()
    return grammar


# A schema.


@every
@many
@given(schema=schemas.objects(), limit=limits, seed=seeds)
def test_json_that_fits(name: str, schema: Schema, limit: int, seed: int) -> None:
    """Nested, lists, choices, optional parts, numbers with bounds, definitions; in a hurry, too."""
    text = scribble(compiled(lambda: compiler(name).compile_schema(schema)), name, limit, seed)
    assert fits(json.loads(text), schema), text


@many
@given(limit=limits, seed=seeds)
def test_any_object(limit: int, seed: int) -> None:
    """Where no schema is given."""
    text = scribble(compiler("qwen").compile_schema({"type": "object"}), "qwen", limit, seed)
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "number"}, "m": {"type": "number"}}}
        | {"required": ["n", "m"]},
        {"type": "object", "properties": {"child": {"$ref": "#"}}},
        {"type": "object", "properties": {"s": {"type": "string", "minLength": 30}}}
        | {"required": ["s"]},
        {"type": "object", "properties": {"d": {"type": "string", "format": "date-time"}}}
        | {"required": ["d"]},
        {"type": "object", "properties": {"p": {"type": "string", "pattern": "^[a-z]{3,90}$"}}},
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 5}},
        {"type": "array", "items": {"type": "number"}, "minItems": 4},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}}
        | {"$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}, "required": ["t"]},
    ],
    ids=["numbers", "recursion", "length", "date", "pattern", "map", "list", "lists", "tree"],
)
@pytest.mark.parametrize("name", ["qwen", "llama", "bytes"])
def test_a_hurried_end(name: str, schema: Schema) -> None:
    """Wherever the hurry begins the end comes soon, and what was written is whole."""
    grammar = compiler(name).compile_schema(schema)
    for seed in range(12):
        assert json.loads(scribble(grammar, name, 1 + 2 * seed, seed)) is not None


def test_objects_hold_what_they_name() -> None:
    """And nothing else, unless they say so; parts of one object stay open to the others."""
    part = {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]}
    whole = {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, part]}
    grammar = compiler("bytes").compile_schema(whole | {"required": ["a", "b"]})
    written = json.loads(scribble(grammar, "bytes", 1, 0))
    assert written.items() >= {"a": None, "b": None}.items()
    open_one = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    for more, allowed in ((True, True), (False, False), (None, False)):
        schema = open_one if more is None else open_one | {"additionalProperties": more}
        guide = compiler("bytes").compile_schema(schema).guide()
        begun = len(guide.begin())
        while begun < len('{"a": null'):
            begun += 1 + len(guide.take(b'{"a": null'[begun]))
        mask = guide.allowed()
        assert mask is not None
        assert bool(mask[ord(",")]) == allowed


def test_choices_beside_properties() -> None:
    """An object may name some properties, and leave others to one of several parts."""
    parts = [{"properties": {n: {"type": "null"}}, "required": [n]} for n in "bc"]
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    grammar = compiler("bytes").compile_schema({**schema, "anyOf": parts})
    assert json.loads(scribble(grammar, "bytes", 1, 0)).keys() & {"b", "c"}


def test_kinds_told_apart_by_a_property() -> None:
    """As pydantic writes a union with a discriminator."""
    parts = [
        {
            "type": "object",
            "properties": {"kind": {"const": n}, n: {"type": "null"}},
            "required": ["kind", n],
        }
        for n in "ab"
    ]
    grammar = compiler("bytes").compile_schema({"oneOf": parts})
    for seed in range(4):
        written = json.loads(scribble(grammar, "bytes", 1, seed))
        assert written == {"kind": written["kind"], written["kind"]: None}


# Calls.


@every
@many
@given(given_schemas=st.lists(schemas.objects(), min_size=1, max_size=2), limit=limits, seed=seeds)
def test_calls_that_must_be(name: str, given_schemas: list[Schema], limit: int, seed: int) -> None:
    """One or more, of tools that there are, with arguments that fit, and nothing around them."""
    tools = {f"tool_{n}": schema for n, schema in enumerate(given_schemas)}
    listed = [ToolSchema(*tool) for tool in tools.items()]
    grammar = compiled(lambda: compiler(name).compile_calls(listed, form(name), forced=True))
    text, calls = read(scribble(grammar, name, limit, seed), name)
    assert not text.strip()
    assert calls
    assert all(fits(arguments, tools[tool]) for tool, arguments in calls)


@every
@many
@given(limit=limits, seed=seeds, several=st.booleans())
def test_calls_that_may_be(name: str, limit: int, seed: int, several: bool) -> None:
    """Text, text and calls, or calls; if there is a call it is whole."""
    grammar = compiler(name).compile_calls(
        [ToolSchema("add", ADD)], form(name), forced=False, several=several
    )
    encode = tokenizer(name).encode
    opening = [
        token
        for piece in tokenizer(name).pieces(form(name).opening)
        for token in ([piece] if isinstance(piece, int) else encode(piece))
    ]
    said = [*encode("So: " if seed % 2 else ""), *opening] if seed % 3 else []
    written = scribble(grammar, name, limit, seed, said)
    text, calls = read(written, name)
    assert form(name).opening.strip() not in text
    assert all(fits(arguments, ADD) for _, arguments in calls)
    assert several or len(calls) <= 1
    if seed % 3:
        assert calls, written


@every
def test_free_text_stays_free(name: str) -> None:
    """Whatever one may say in a reply, also what begins like a call; all of it is drawn."""
    grammar = compiler(name).compile_calls([ToolSchema("add", ADD)], form(name), forced=False)
    said = 'Well,\n\n{"a": [1]} is < 3 and <tool is no call. Ärger 🙂 {"x"'
    ids = tokenizer(name).encode(said)
    guide = grammar.guide()
    assert [*guide.begin()] == []
    for token in ids:
        allowed = guide.allowed()
        assert allowed is not None
        assert allowed[token], (token, tokenizer(name).decode([token]))
        assert [*guide.take(token)] == []
        assert not guide.done
    allowed = guide.allowed()
    assert allowed is not None
    assert any(allowed[end] for end in tokenizer(name).ends)


@every
@many
@given(schema=schemas.objects(), limit=limits, seed=seeds)
def test_calls_or_json(name: str, schema: Schema, limit: int, seed: int) -> None:
    """As agents with tools and a schema need it: a reply without a call fits the schema."""
    make = compiler(name).compile_calls
    grammar = compiled(
        lambda: make([ToolSchema("add", ADD)], form(name), forced=False, schema=schema)
    )
    written = scribble(grammar, name, limit, seed)
    text, calls = read(written, name) if "add" in written else (written, [])
    assert fits(json.loads(text), schema) if not calls else fits(calls[0][1], ADD)


@every
def test_one_way_only(name: str) -> None:
    """Where all is certain one token is left to be drawn, as a writer needs one."""
    grammar = compiler(name).compile_calls(
        [ToolSchema("go", {"type": "object", "properties": {}})],
        form(name),
        forced=True,
        several=False,
    )
    guide = grammar.guide()
    begun = [*guide.begin()]
    assert begun
    _, calls = read(scribble(grammar, name, 1, 0), name)
    assert calls == [("go", {})]
    allowed = guide.allowed()
    assert allowed is not None
    assert allowed.any()
    grammar = compiler(name).compile_schema({"const": "x"})
    assert scribble(grammar, name, 1, 0) == '"x"'


@every
@pytest.mark.parametrize("parameters", [{"properties": {"a": {"type": "integer"}}}, {}, ADD])
def test_arguments_are_objects(name: str, parameters: Schema) -> None:
    """Also where a schema forgets to say so."""
    grammar = compiler(name).compile_calls([ToolSchema("go", parameters)], form(name), forced=True)
    for seed in range(8):
        _, calls = read(scribble(grammar, name, 9, seed), name)
        assert all(isinstance(arguments, dict) for _, arguments in calls)


# Text from outside.

NASTY = ["<|im_end|>", "<|eot_id|>", "</s>", "<think>", "</think>", "</tool_call>", "[TOOL_CALLS]"]
NASTY += ["<|tool_calls_end|>", 'a"b', "a\\b", "a\nb", "ä🙂", "%json", "<[1]>", "(a)|b*"]


@every
@pytest.mark.parametrize("text", NASTY)
def test_names_and_values_are_only_text(name: str, text: str) -> None:
    """They give no control token, however sure they are; and calls hold them as they are."""
    parameters = {
        "type": "object",
        "properties": {
            "fixed": {"const": f"x{text}y"},
            "one": {"enum": [f"1{text}", f"2{text}"]},
            f"key{text}": {"type": "null"},
        },
        "required": ["fixed", "one", f"key{text}"],
    }
    grammar = compiler(name).compile_calls([ToolSchema("go", parameters)], form(name), forced=True)
    _, calls = read(scribble(grammar, name, 1, 0), name)
    assert calls[0][1]["fixed"] == f"x{text}y"
    assert calls[0][1]["one"] in (f"1{text}", f"2{text}")
    assert f"key{text}" in calls[0][1]


@every
@pytest.mark.parametrize("text", [text for text in NASTY if not {*'"\\\n'} & {*text}])
def test_names_of_tools_are_only_text(name: str, text: str) -> None:
    """If such a name is taken at all."""
    try:
        grammar = compiler(name).compile_calls(
            [ToolSchema(f"go{text}", ADD)], form(name), forced=True
        )
    except HogwildError:
        return
    _, calls = read(scribble(grammar, name, 1, 0), name)
    assert calls[0][0] == f"go{text}"


# What cannot be.


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nonsense"}, ["nonsense"]),
        ({"type": "object", "if": {}, "then": {}}, ["if"]),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}, "required": ["a"]}, []),
        (ADD | {"properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}}, ["a"]),
        ({"type": "string", "pattern": "("}, []),
    ],
    ids=["type", "if", "ref", "bounds", "regex"],
)
def test_schemas_that_no_grammar_can_hold(schema: Schema, words: list[str]) -> None:
    """Are refused at once, with the reason and without the grammar's own inner words."""
    makers: tuple[Callable[[], Grammar], ...] = (
        lambda: compiler("qwen").compile_schema(schema),
        lambda: compiler("qwen").compile_calls(
            [ToolSchema("go", {"type": "object", "properties": {"s": schema}, "required": ["s"]})],
            HERMES,
            forced=True,
        ),
    )
    for make in makers:
        with pytest.raises(GrammarError, match="No grammar can express the schema") as caught:
            make()
        assert isinstance(caught.value, ValueError)
        assert all(word in str(caught.value) for word in words)
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_slow_tokenizers() -> None:
    """Are refused, as their vocabularies cannot be read."""

    class Slow:
        plain = object()
        ends: frozenset[int] = frozenset()

    with pytest.raises(GrammarError, match="fast tokenizer, and object is not one"):
        GrammarCompiler(Slow())  # type: ignore[arg-type]


def test_what_is_not_allowed_breaks_down() -> None:
    """A guide that is told of another token says so."""
    guide = compiler("bytes").compile_schema({"type": "object"}).guide()
    guide.begin()
    with pytest.raises(GrammarError, match="broke down"):
        guide.take(ord("]"))


def test_guides_are_alone() -> None:
    """One reply's guide knows nothing of another's."""
    grammar = compiler("bytes").compile_schema({"enum": ["ab", "ba"]})
    one, two = grammar.guide(), grammar.guide()
    assert [*one.begin()] == [*two.begin()] == [*b'"']
    assert [*one.take(ord("a"))] == [*b'b"']
    assert [*two.take(ord("b"))] == [*b'a"']
