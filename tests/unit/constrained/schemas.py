"""JSON schemas of every kind that the grammars must hold, what fits them, and random writers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from hogwild_agents.constrained.grammars import Grammar, GrammarCompiler
from hogwild_agents.team import TeamTokenizer
from hogwild_agents.team.reply_writer import GUIDE_OVERRUN
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat
from tests.unit.constrained.replies import parse
from tests.unit.team import tokenizers as small
from tests.unit.team import tool_formats

Schema = dict[str, Any]

ADD: Schema = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
"""Arguments of a tool that adds two numbers."""

# What schemas are made of. Names hold what is awkward in JSON, in Lark and in templates.
names = st.sampled_from(["a", "b", "ä b", "title", "properties", "enum", "default", 'q"', "x\\y"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
plain_values = st.none() | st.booleans() | st.integers(-99, 99) | texts


def _bounded(kind: str) -> st.SearchStrategy[Schema]:
    bound = st.integers(-2000, 2000)
    both = st.tuples(bound, st.integers(0, 300)).map(
        lambda pair: {"type": kind, "minimum": pair[0], "maximum": pair[0] + pair[1]}
    )
    one = st.builds(lambda key, at: {"type": kind, key: at}, st.sampled_from(_BOUNDS), bound)
    return both | one | st.just({"type": kind})


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_leaves: st.SearchStrategy[Schema] = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string"}]),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    st.lists(plain_values, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    plain_values.map(lambda value: {"const": value}),
    _bounded("integer"),
    _bounded("number"),
)


def _with(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    lists = st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )
    return st.one_of(
        _objects(inner),
        lists,
        inner.map(lambda items: {"type": "array", "items": items}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"anyOf": parts}),
    )


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(names, inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required}


@st.composite
def objects(draw: st.DrawFn) -> Schema:
    """Schemas of objects, some with definitions that they refer to."""
    inner = st.recursive(_leaves, _with, max_leaves=5)
    schema = draw(_objects(inner))
    if draw(st.booleans()):
        schema["$defs"] = {"Part": draw(inner)}
        schema["properties"]["part"] = {"$ref": "#/$defs/Part"}
        schema["required"] += ["part"] if draw(st.booleans()) else []
    return schema


def fits(value: Any, schema: Schema, root: Schema | None = None) -> bool:
    """Whether a value is what a schema of `objects` asks for."""
    root = root or schema
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(fits(value, part, root) for part in schema["anyOf"])
    if "enum" in schema:
        return any(value == given and type(value) is type(given) for given in schema["enum"])
    if "const" in schema:
        return value == schema["const"] and type(value) is type(schema["const"])
    return _KINDS[schema["type"]](value, schema, root)


def _fits_object(value: Any, schema: Schema, root: Schema) -> bool:
    properties = schema.get("properties", {})
    return (
        isinstance(value, dict)
        and {*schema.get("required", ())} <= value.keys() <= properties.keys()
        and all(fits(part, properties[name], root) for name, part in value.items())
    )


def _fits_array(value: Any, schema: Schema, root: Schema) -> bool:
    return (
        isinstance(value, list)
        and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        and all(fits(part, schema["items"], root) for part in value)
    )


def _fits_string(value: Any, schema: Schema, _: Schema) -> bool:
    return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get(
        "maxLength", len(value)
    )


def _fits_number(value: Any, schema: Schema, _: Schema) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (schema["type"] == "number" or isinstance(value, int))
        and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


_KINDS: dict[str, Callable[[Any, Schema, Schema], bool]] = {
    "object": _fits_object,
    "array": _fits_array,
    "string": _fits_string,
    "integer": _fits_number,
    "number": _fits_number,
    "boolean": lambda value, *_: isinstance(value, bool),
    "null": lambda value, *_: value is None,
}

# Who writes.

TOKENIZERS = (
    "qwen",
    "llama",
    "mistral",
    "deepseek",
    "thoughtful",
    "compact",
    "xml",
    "bytes",
    "inst",
)


@cache
def tokenizer(name: str) -> TeamTokenizer:
    """One of each manner; `xml`, `bytes` and `inst` have calls spelled out."""
    if name in ("bytes", "inst"):
        return TeamTokenizer(small.plain_bytes() if name == "bytes" else small.metaspace())
    return tool_formats.team(name)


@cache
def compiler(name: str) -> GrammarCompiler:
    """For such a tokenizer."""
    return GrammarCompiler(tokenizer(name))


def form(name: str) -> ToolCallFormat:
    """How a tokenizer's model writes calls."""
    return tokenizer(name).tool_call_format or HERMES


def read(text: str, name: str) -> tuple[str, list[tuple[str, Any]]]:
    """A reply as text and complete calls, each with its name and its arguments."""
    text, calls = parse(form(name), text)
    return text, [(tool, json.loads(arguments)) for tool, arguments in calls]


def scribble(grammar: Grammar, name: str, limit: int, seed: int, say: Sequence[int] = ()) -> str:
    """What a writer without a mind makes of a grammar; all of its tokens are checked.

    Args:
        grammar: What it is kept to.
        name: Of the tokenizer.
        limit: After so many tokens it is hurried.
        seed: Another seed, another text.
        say: Ids that it begins with, if it may.
    """
    guide, ids = grammar.guide(), tokenizer(name)
    written = [*guide.begin()]
    rng, left = random.Random(seed), [*say]
    while not guide.done:
        allowed = guide.allowed()
        assert allowed is not None
        choices = allowed.nonzero().flatten().tolist()
        left = left if left and left[0] in choices else []
        token = left.pop(0) if left else _choose(rng, choices, ids)
        if token in ids.ends:
            break
        written += [token, *guide.take(token)]
        assert len(written) <= limit + GUIDE_OVERRUN + len(say), (
            f"no end: {ids.decode(written)!r:.300}"
        )
        if len(written) >= limit and not left:
            assert guide.hurry(limit + GUIDE_OVERRUN + len(say) - len(written)), ids.decode(written)
    assert_harmless(written, name)
    return ids.decode(written)


def _choose(rng: random.Random, choices: list[int], ids: TeamTokenizer) -> int:
    """Any of them; one time in three of the printable ones."""
    common = [token for token in choices if token < 128 and ids.decode([token]).isprintable()]
    return rng.choice(common if common and rng.random() < 0.3 else choices)


def assert_harmless(written: Sequence[int], name: str) -> None:
    """No end, and no mark but those of the form of calls."""
    ids = tokenizer(name)
    form = ids.tool_call_format or HERMES
    marks = {m: i for m, i in ids.plain.get_added_vocab().items() if len(m) > 1}
    words = "".join(filter(None, form[:4]))
    own = re.findall("|".join(map(re.escape, sorted(marks))), words)
    foreign = {mark for mark, index in marks.items() if index in written} - {*own}
    assert not foreign, foreign
