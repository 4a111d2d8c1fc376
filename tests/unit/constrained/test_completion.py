"""Completions: wherever a reply is hurried, it comes to a valid end, and soon."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from hogwild_agents.constrained.completion import ByteTokens, Completer, shortest_text
from hogwild_agents.constrained.grammars import ToolSchema, _analyze, analyze_schema
from hogwild_agents.constrained.json_schema import (
    Separators,
    ShortestTexts,
    close_objects,
    subschemas,
)
from hogwild_agents.errors import GrammarError
from hogwild_agents.team.reply_writer import GUIDE_OVERRUN
from hogwild_agents.team.tool_format import HERMES
from tests.unit.constrained.schemas import Schema, compiler, scribble

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}


def holding(**properties: Any) -> Schema:
    """An object that must hold all of these."""
    return {"type": "object", "properties": properties, "required": [*properties]}


def beside_text(**limits: Any) -> Schema:
    """An object with a limited part, and a text that comes after it."""
    return holding(y=limits, z=TEXT)


def pattern(regex: str) -> Schema:
    return beside_text(type="string", pattern=regex)


_SUM = holding(kind={"const": "add"}, left={"$ref": "#/$defs/E"}, right={"$ref": "#/$defs/E"})
_NUMBER = holding(kind={"const": "num"}, value={"type": "number"})
AWKWARD: dict[str, Schema] = {
    "fraction": beside_text(type="number", exclusiveMinimum=0, exclusiveMaximum=1),
    "positive": beside_text(type="number", exclusiveMinimum=0),
    "near zero": beside_text(type="number", exclusiveMaximum=0, minimum=-0.001),
    "years": beside_text(type="integer", minimum=1999, maximum=2003),
    "sevens": beside_text(type="integer", multipleOf=7, minimum=1000),
    "thousands": beside_text(type="integer", multipleOf=1000, minimum=1),
    "anywhere": pattern("abc"),
    "letters anywhere": pattern("wvutsr"),
    "digits anywhere": pattern(r"\d{4}-\d{2}"),
    "end": pattern(r"^.*x?yz+;$"),
    "address": pattern(r"^\w+@(example|test)\.(com|org)$"),
    "braces": pattern(r"^[}]*x[\]}]+$"),
    "escapes": pattern('^"[a-z]*"\\\\$'),
    "other letters": pattern("^[д-к]{3}$"),
    "long pattern": beside_text(type="string", pattern="^[a-z ]+$", minLength=20),
    "long": beside_text(type="string", minLength=60),
    "items": beside_text(type="array", items=WHOLE, minItems=30),
    "tuple": beside_text(type="array", prefixItems=[WHOLE, TEXT], minItems=2, items=False),
    "map": beside_text(type="object", additionalProperties={"type": "number", "minimum": 0.5}),
    "sums": {
        "$defs": {"E": {"anyOf": [{"$ref": "#/$defs/Sum"}, {"$ref": "#/$defs/Number"}]}}
        | {"Sum": _SUM, "Number": _NUMBER},
        **holding(e={"$ref": "#/$defs/E"}),
    },
    "more of its kind": holding(zz=WHOLE) | {"properties": {"a": {"$ref": "#"}, "zz": WHOLE}},
    **{
        name: beside_text(type="string", format=name)
        for name in ("email", "date-time", "date", "time", "uuid", "ipv4", "uri", "hostname")
    },
}


@pytest.mark.parametrize("name", ["qwen", "bytes", "inst"])
@pytest.mark.parametrize("schema", AWKWARD.values(), ids=AWKWARD)
def test_awkward_schemas(name: str, schema: Schema) -> None:
    """Come to an end with all that they must hold, as JSON and in calls."""
    grammar = compiler(name).compile_schema(schema)
    for seed in range(8):
        text = scribble(grammar, name, 1 + 2 * seed, seed)
        assert json.loads(text).keys() >= {*schema["required"]}
        if "pattern" in schema["properties"].get("y", {}):
            assert re.search(schema["properties"]["y"]["pattern"], json.loads(text)["y"])
    tools = [ToolSchema("go", schema), ToolSchema("gone", schema)]
    calls = compiler(name).compile_calls(tools, HERMES, forced=True)
    for seed in range(4):
        assert scribble(calls, name, 1 + 9 * seed, seed).endswith(HERMES.closing)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["qwen", "bytes", "inst"]),
    schema=st.sampled_from([*AWKWARD.values()]),
    limit=st.integers(1, 80),
    seed=st.integers(0, 2**32),
)
def test_wherever_it_is_hurried(name: str, schema: Schema, limit: int, seed: int) -> None:
    """Random cuts of random texts."""
    text = scribble(compiler(name).compile_schema(schema), name, limit, seed)
    assert json.loads(text).keys() >= {*schema["required"]}


def test_an_end_that_is_too_far() -> None:
    """Is not begun."""
    schema = beside_text(type="array", items=WHOLE, minItems=300)
    guide = compiler("bytes").compile_schema(schema).guide()
    guide.begin()
    assert not guide.hurry(GUIDE_OVERRUN)
    assert guide.hurry(2000)


def test_an_end_is_one_pass() -> None:
    """Its first token is drawn, the others follow at once."""
    guide = compiler("bytes").compile_schema(holding(a=TEXT, b=WHOLE)).guide()
    guide.begin()
    assert guide.hurry(GUIDE_OVERRUN)
    (first,) = guide.allowed().nonzero().flatten().tolist()
    assert bytes([first, *guide.take(first)]) == b'", "b": 0}'
    assert guide.done


class _Words:
    """A large vocabulary of random words."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)

    def __init__(self, size: int) -> None:
        rng = random.Random(0)
        words = {bytes(rng.choices(b'abcdefghij 0",:}{', k=rng.randint(2, 7))) for _ in range(size)}
        self.tokens = [*(bytes([n]) for n in range(256)), b"\xff<end>", *sorted(words)]

    def __call__(self, text: bytes | str) -> list[int]:
        return [*(text.encode() if isinstance(text, str) else text)]


class CountingMatcher:
    """A matcher that counts how often it and its copies are asked something."""

    def __init__(self, matcher: LLMatcher, calls: Counter[str]) -> None:
        self._matcher = matcher
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._matcher, name)

        def call(*arguments: Any) -> Any:
            self._calls[name] += 1
            result = method(*arguments)
            return CountingMatcher(result, self._calls) if name == "deep_copy" else result

        return call


def test_a_completion_asks_the_matcher_seldom() -> None:
    """Also with a large vocabulary and a large schema, as it is sought between two passes."""
    large = holding(
        **{f"part_{n}": schema for n, schema in enumerate([*AWKWARD.values()][:18])},
        more={"type": "array", "items": holding(a=TEXT, b=WHOLE), "minItems": 3},
    )
    analysis = analyze_schema(large)
    tokens = LLTokenizer(TokenizerWrapper(_Words(150_000)))
    hints = replace(
        compiler("bytes").compile_schema(large).hints, closing_ids=(), end_id=tokens.eos_token
    )
    spaces = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    source = json.dumps({**analysis.schema, "x-guidance": spaces})
    matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(f"start: %json {source}"), log_level=0)
    begun = b'{"part_0": {"y": 0.0'
    assert matcher.consume_tokens([*begun])
    calls: Counter[str] = Counter()
    counting: Any = CountingMatcher(matcher, calls)
    ids = Completer(ByteTokens(tokens), hints, _forced).complete(counting, begun, 4000)
    assert ids is not None
    json.loads(begun + tokens.decode_bytes(ids).removesuffix(b"\xff<end>"))
    assert calls.total() < 2000, calls
    assert calls["deep_copy"] < 25


def _forced(matcher: Any) -> list[int]:
    ids: list[int] = matcher.compute_ff_tokens()
    matcher.consume_tokens(ids)
    return ids


# Shortest texts.


@pytest.mark.parametrize("schema", AWKWARD.values(), ids=AWKWARD)
def test_shortest_texts_are_json(schema: Schema) -> None:
    """There is one for the whole schema."""
    texts = ShortestTexts(schema, shortest_text, Separators(", ", ": "))
    shortest = min((text for text in texts.candidates() if text.startswith("{")), key=len)
    assert json.loads(shortest) is not None
    assert "" not in texts.endless


def test_parts() -> None:
    """By their pointers, with what is inside before what is around."""
    schema = {"properties": {"a/b": {"items": {"type": "null"}}}, "anyOf": [True]}
    assert [pointer for pointer, _ in subschemas(schema)] == [
        "/properties/a~1b/items",
        "/properties/a~1b",
        "/anyOf/0",
        "",
    ]


# What never ends.

HOLDS_ITSELF = holding(a={"$ref": "#"})
NEEDS_ITS_KIND = {
    "$defs": {"T": holding(kids={"type": "array", "items": {"$ref": "#/$defs/T"}, "minItems": 1})},
    **holding(t={"$ref": "#/$defs/T"}),
}


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        (HOLDS_ITSELF, "#/properties/a "),
        (NEEDS_ITS_KIND, "#/$defs/T/properties/kids/items "),
        (holding(a={"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), "#/properties/a/anyOf/0 "),
    ],
)
def test_what_never_ends(schema: Schema, where: str) -> None:
    """Is refused, and the part is named."""
    with pytest.raises(GrammarError, match="no finite text fits it") as caught:
        analyze_schema(schema)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        holding(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        holding(a={"type": "array", "items": {"$ref": "#"}}),
        {**HOLDS_ITSELF, "type": ["object", "null"]},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_what_may_end(schema: Schema) -> None:
    """Recursion alone is no fault."""
    for seed in range(4):
        json.loads(scribble(compiler("bytes").compile_schema(schema), "bytes", 1 + seed, seed))


def test_parts_that_never_end_are_left_out() -> None:
    """Where something else fits, nobody is led into them."""
    schema = {
        "$defs": {"T": holding(t={"$ref": "#/$defs/T"})},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/T"}, "b": {"type": "null"}},
        "required": ["b"],
    }
    assert analyze_schema(schema).schema["properties"]["a"] is False
    for seed in range(8):
        assert (
            scribble(compiler("bytes").compile_schema(schema), "bytes", 40, seed) == '{"b": null}'
        )
    assert close_objects(schema)["properties"]["a"] == {"$ref": "#/$defs/T"}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "string", "pattern": "(?=a)b"}, ["look-ahead", "#/properties/s", "(?=a)b"]),
        ({"type": "string", "pattern": "("}, ["unclosed group", "#/properties/s"]),
        ({"type": "integer", "minimum": 2, "maximum": 1}, ["minimum (2)", "#/properties/s"]),
        ({"type": "nonsense"}, ["nonsense", "#/properties/s"]),
        ({"$ref": "#/$defs/no"}, ["/$defs/no", "#/properties/s"]),
    ],
)
def test_why_a_schema_is_refused(part: Schema, words: list[str]) -> None:
    """The reason, whole, and the part that is to blame."""
    _analyze.cache_clear()
    with pytest.raises(GrammarError) as caught:
        analyze_schema(holding(r=TEXT, s=part))
    assert all(word in str(caught.value) for word in words), str(caught.value)
