"""From a model's reply to a typed answer."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnablePassthrough,
)
from pydantic import BaseModel, ConfigDict, Field, RootModel

from hogwild_agents import HogwildError
from hogwild_agents.errors import InvalidAnswerFormatError, InvalidMessageError
from hogwild_agents.langchain.runnables import FinalAnswer, NoAnswerError
from hogwild_agents.langchain.runnables.answers import format_of, thoughts_of
from hogwild_agents.team.answers import boxed, choice
from tests.unit.langchain.runnables.pieces import Runs, check_runs, check_ways, message
from tests.unit.small_models import WAIT
from tests.unit.team.answer_texts import FORMATS, broken, json_values

NAMES = ["boxed", "number", "choice", "json", "code"]


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0
    label: str | None = None


class Strict(BaseModel):
    """What JSON can say only in its own way."""

    model_config = ConfigDict(strict=True)

    day: date
    pair: tuple[int, int]


class Tree(BaseModel):
    """An object that may hold its like."""

    value: int
    inner: Tree | None = None


def model(*replies: str | AIMessage) -> GenericFakeChatModel:
    """A chat model that gives these replies."""
    return GenericFakeChatModel(messages=iter(replies))


def first_word(text: str) -> str | None:
    """An answer format of our own."""
    words = text.split()
    return words[0] if words else None


# Formats.


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        ("boxed", r"So \boxed{a} or \boxed{b}.", "b"),
        ("number", r"It is \boxed{1,234}.", 1234),
        ("number", "The answer is 2.5.", 2.5),
        ("choice", "The answer is (C).", "C"),
        (choice("PQ"), "The answer is Q.", "Q"),
        ("json", 'So {"a": [1]}.', {"a": [1]}),
        ("code", "```python final\nprint(1)\n```", "print(1)\n"),
        (boxed(int), r"\boxed{7} or \boxed{x}", 7),
        (first_word, " hello world", "hello"),
        (re.compile(r"total of (\w+)"), "a total of 3, no, a total of 5", "5"),
        (re.compile(r"\d+"), "3 or 5", "5"),
        (re.compile(r"(\d+) (?P<answer>\w+)"), "3 apples", "apples"),
        (Point, 'First {"x": 1}, then {"x": 2, "y": 3}. Or {"z": 9}?', Point(x=2, y=3)),
        (Point, '```json\n{"x": 1}\n```\nnot {"y": 2}', Point(x=1)),
        (
            Strict,
            '{"day": "2026-01-31", "pair": [1, 2]}',
            Strict(day=date(2026, 1, 31), pair=(1, 2)),
        ),
        (RootModel[list[int]], "So [1, 2], not [] or ['a'].", RootModel[list[int]]([])),
        (RootModel[list[int]], 'So [1, 2], not ["a"].', RootModel[list[int]]([1, 2])),
    ],
)
def test_formats(kind: Any, text: str, answer: Any) -> None:
    """Each way to say what an answer looks like; nothing gives None."""
    assert FinalAnswer(kind).invoke(text) == answer
    assert FinalAnswer(kind).invoke(AIMessage(text)) == answer
    assert FinalAnswer(kind).invoke("") is None
    assert FinalAnswer(kind).parse(text) == answer


@settings(deadline=None)
@given(st.sampled_from([*NAMES, *FORMATS]), broken)
def test_it_reads_a_text_as_a_team_does(kind: Any, text: str) -> None:
    """Whatever the text; a message of that text is no different."""
    expected = format_of(kind).extract(text)
    assert FinalAnswer(kind).invoke(text) == expected
    assert FinalAnswer(kind).invoke(AIMessage(text)) == expected


points = st.builds(Point, x=st.integers(), y=st.integers(), label=st.none() | st.text())
others = json_values.filter(lambda value: not isinstance(value, dict) or "x" not in value)


@settings(deadline=None)
@given(st.lists(points, min_size=1), st.lists(others), st.text(alphabet="abc .\n[{"), st.booleans())
def test_the_last_that_fits_a_class(
    made: list[Point], junk: list[Any], between: str, fenced: bool
) -> None:
    """Whatever else stands in the text, before, between and after."""
    parts = [point.model_dump_json() for point in made]
    if fenced:
        parts[-1] = f"\n```json\n{parts[-1]}\n```\n"
    after = [json.dumps(one) for one in junk if not _holds_a_point(one)]
    text = f" {between}\n".join([*parts, *after])
    assert FinalAnswer(Point).invoke(text) == made[-1]


def _holds_a_point(value: Any) -> bool:
    """Whether some object inside could be a point."""
    return '"x"' in json.dumps(value)


@settings(deadline=None)
@given(st.lists(st.integers(), min_size=1, max_size=6))
def test_the_outermost_that_fits(values: list[int]) -> None:
    """An object is taken with all that it holds, and where that does not fit, what it holds."""
    tree: Tree | None = None
    for value in values:
        tree = Tree(value=value, inner=tree)
    assert tree is not None
    text = tree.model_dump_json()
    assert FinalAnswer(Tree).invoke(f"So: {text}.") == tree
    assert FinalAnswer(Tree).invoke(f'{{"tree": {text}, "note": "mine"}}') == tree


@pytest.mark.parametrize(
    "text",
    [
        '{"x": ' * 50_000,
        '{"z": 1} ' * 50_000,
        '{"x": {"z": [' * 30_000,
        '{"x": 1} ' * 50_000,
    ],
    ids=range(4),
)
def test_long_texts_do_not_take_forever(text: str) -> None:
    """Nor does the search for an object in them."""
    search = threading.Thread(target=FinalAnswer(Point).invoke, args=(text,), daemon=True)
    search.start()
    search.join(WAIT)
    assert not search.is_alive()


def test_numbers_beyond_all_bounds() -> None:
    """A value that the class refuses is none, without an error."""

    class Small(BaseModel):
        x: int = Field(lt=10)

    assert FinalAnswer(Small).invoke('{"x": 1} {"x": 11} {"x": 1e999} {"x": "\ud800"}') == Small(
        x=1
    )


# Messages.


def test_a_message_s_text() -> None:
    """Text and lists of blocks; thoughts are not part of the reply."""
    blocks: list[Any] = [
        {"type": "reasoning", "reasoning": r"\boxed{1}", "index": 0},
        {"type": "text", "text": r"It is \boxed"},
        {"type": "text", "text": "{2}."},
    ]
    assert FinalAnswer().invoke(AIMessage(blocks)) == "2"
    assert FinalAnswer().invoke(HumanMessage(r"\boxed{3}")) == "3"


def test_reply_then_metadata_then_thoughts() -> None:
    """The first of them that holds an answer in this format."""
    thought = message("", Alice=r"Perhaps \boxed{1}.", Bob=r"\boxed{2")
    found = thought.model_copy(
        update={"response_metadata": {**thought.response_metadata, "answer": "3"}}
    )
    said = found.model_copy(update={"content": r"It is \boxed{4}."})
    assert FinalAnswer().invoke(thought) == "1"
    assert FinalAnswer().invoke(found) == "3"
    assert FinalAnswer().invoke(said) == "4"


@pytest.mark.parametrize(
    ("told", "kind", "answer"),
    [
        (None, "boxed", 7),
        ("boxed", "boxed", 7),
        ("number", "number", 7),
        ("number", "boxed", None),
        (None, "number", None),
        ("custom", first_word, None),
        ("boxed", replace(boxed(), max_tokens=96), 7),
    ],
)
def test_the_team_s_own_answer(told: str | None, kind: Any, answer: Any) -> None:
    """It counts if it was read in the same format, which `boxed` is unless another is named."""
    metadata = {"answer": 7} | ({"answer_format": told} if told else {})
    assert FinalAnswer(kind).invoke(AIMessage("", response_metadata=metadata)) == answer


def test_thoughts_count_by_the_strict_rule() -> None:
    """A number that somebody mentions is no answer."""
    assert FinalAnswer("number").invoke(message("", Alice="so 17 * 4 is 68")) is None
    assert FinalAnswer("number").invoke(message("", Alice=r"so \boxed{68}")) == 68
    assert FinalAnswer("number").invoke(message("It is 69.", Alice=r"\boxed{68}")) == 69


def test_thoughts_of_any_model() -> None:
    """By worker where they have names; of v1 messages, and of other models."""
    mine = message("", Alice="a", Bob="b")
    assert thoughts_of(mine) == [("Alice", "a"), ("Bob", "b")]
    v1 = AIMessage(content_blocks=mine.content_blocks, response_metadata={"output_version": "v1"})
    assert thoughts_of(v1) == [("Alice", "a"), ("Bob", "b")]
    other = AIMessage("", additional_kwargs={"reasoning_content": r"Hm, \boxed{5}."})
    assert thoughts_of(other) == [("", r"Hm, \boxed{5}.")]
    assert FinalAnswer().invoke(other) == "5"


# Fallbacks.


def test_other_formats() -> None:
    """Tried in turn; a lone one needs no list."""
    final = FinalAnswer("boxed", fallback=["choice", "number"])
    assert final.invoke(r"\boxed{x}. The answer is B, 5 of them.") == "x"
    assert final.invoke("The answer is B, 5 of them.") == "B"
    assert final.invoke("There are 5 of them.") == 5
    assert final.invoke("None.") is None
    assert FinalAnswer(fallback="number") == FinalAnswer(fallback=[FinalAnswer("number")])
    assert FinalAnswer(fallback=first_word).invoke("hello world") == "hello"


def test_other_formats_look_everywhere_too() -> None:
    """In the thoughts of a message, say."""
    thought = message("", Alice='```json\n{"x": 1}\n```\n')
    assert FinalAnswer(fallback="json").invoke(thought) == {"x": 1}


def test_a_model_as_a_fallback() -> None:
    """A chain gets the text, and the thoughts if there is no text; it is asked only if need be."""
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value.to_messages()[0].content)
        return value

    template = ChatPromptTemplate.from_template("What is the answer in: {text}")
    chain = template | note | model("It is 5.", "It is 6.") | FinalAnswer("number")
    final = FinalAnswer(fallback=["choice", chain])
    assert final.invoke(AIMessage(r"\boxed{x}")) == "x"
    assert seen == []
    assert final.invoke(AIMessage("five apples")) == 5
    assert final.invoke(message("", Alice="six", Bob="sure")) == 6
    assert seen == [
        "What is the answer in: five apples",
        "What is the answer in: six\n\nsure",
    ]


def test_fallbacks_are_awaited() -> None:
    """And only asked for what the ones before did not find."""

    async def ask(text: str) -> str | None:
        await asyncio.sleep(0)
        return text.upper() if "apples" in text else None

    final = FinalAnswer(fallback=[RunnableLambda(ask), "number"])
    assert asyncio.run(final.ainvoke("five apples")) == "FIVE APPLES"
    assert asyncio.run(final.ainvoke("5 pears")) == 5
    assert asyncio.run(final.ainvoke(r"\boxed{apples}")) == "apples"


def test_fallbacks_are_traced() -> None:
    """As runs inside its own."""
    runs = Runs()
    final = FinalAnswer(fallback=["choice", RunnableLambda(first_word)])
    assert final.invoke("hello", {"callbacks": [runs]}) == "hello"
    assert runs.names == ["FinalAnswer", "FinalAnswer", "first_word"]
    assert runs.parents.count(None) == 1


# Strict.


def test_strict() -> None:
    """An error of this package and of LangChain's, which holds the text."""
    final = FinalAnswer("number", fallback="choice", strict=True)
    assert final.invoke("It is 5.") == 5
    for text in ("Nothing here.", AIMessage("Nothing here.")):
        with pytest.raises(
            NoAnswerError, match=r"no answer as 'number' in .*Nothing here"
        ) as caught:
            final.invoke(text)
        assert caught.value.llm_output == "Nothing here."
    assert isinstance(caught.value, HogwildError)
    assert isinstance(caught.value, OutputParserException)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (str(twin), twin.llm_output) == (str(caught.value), "Nothing here.")
    assert final.parse_result([Generation(text="")], partial=True) is None
    with pytest.raises(NoAnswerError):
        asyncio.run(final.ainvoke("Nothing here."))


def test_strict_with_langchain_s_own_means() -> None:
    """`with_fallbacks` and `with_retry` see the error."""
    spare = FinalAnswer("boxed", strict=True).with_fallbacks([FinalAnswer("number")])
    assert spare.invoke("It is 5.") == 5
    again: Runnable[Any, Any] = (
        RunnablePassthrough() | model("Hm.", r"\boxed{2}") | FinalAnswer(strict=True)
    ).with_retry(retry_if_exception_type=(NoAnswerError,), wait_exponential_jitter=False)
    assert again.invoke("2?") == "2"


# How it is used.


def test_every_way_to_run_it() -> None:
    final = FinalAnswer("number", fallback=["boxed"])
    check_ways(final, "It is 5.", 5)
    check_ways(FinalAnswer(Point), AIMessage('{"x": 1}'), Point(x=1))
    check_ways(FinalAnswer(first_word), "", None)
    check_runs(final, "It is 5.", "FinalAnswer", "parser")
    assert repr(final) == "FinalAnswer(format='number', fallback=(FinalAnswer(),))"
    assert repr(FinalAnswer(first_word)) == "FinalAnswer(format='first_word')"
    assert repr(FinalAnswer(replace(boxed(), name="mine"))) == "FinalAnswer(format='mine')"
    assert eval(repr(final)) == final


def test_after_any_chat_model() -> None:
    """Invoked, streamed, batched, with and without asyncio: one answer each."""

    async def streamed(chain: Any) -> list[Any]:
        return [chunk async for chunk in chain.astream("Hi.")]

    reply = "The answer is \\boxed{4 and more}."
    final = FinalAnswer()
    assert (model(reply) | final).invoke("Hi.") == "4 and more"
    assert list((model(reply) | final).stream("Hi.")) == ["4 and more"]
    assert asyncio.run(streamed(model(reply) | final)) == ["4 and more"]
    assert (model(reply, reply) | final).batch(["Hi.", "Ho."]) == ["4 and more"] * 2
    assert list((model("Nothing.") | final).stream("Hi.")) == [None]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="b{}\\oxed 4."), min_size=1), st.booleans(), st.booleans())
def test_any_stream_gives_what_the_whole_gives(pieces: list[str], texts: bool, late: bool) -> None:
    """Chunks of a message and of text, wherever they are cut; nothing comes before the end."""
    pieces = [*pieces, *("\\bo", "xed{a", "}", "", " end")]
    chunks: list[Any] = pieces if texts else [AIMessageChunk(content=piece) for piece in pieces]
    taken: list[Any] = []

    def source(_: Any) -> Iterator[Any]:
        for chunk in chunks:
            taken.append(chunk)
            yield chunk

    async def asource(_: Any) -> AsyncIterator[Any]:
        for chunk in chunks:
            taken.append(chunk)
            yield chunk

    async def read(stream: AsyncIterator[Any]) -> list[Any]:
        return [(answer, len(taken)) async for answer in stream]

    expected = FinalAnswer().invoke("".join(pieces))
    if late:
        seen = asyncio.run(read((RunnableLambda(asource) | FinalAnswer()).astream("Hi.")))
    else:
        chain = RunnableLambda(source) | FinalAnswer()
        seen = [(answer, len(taken)) for answer in chain.stream("Hi.")]
    assert seen == [(expected, len(chunks))]


def test_a_stream_with_thoughts() -> None:
    """Their pieces are joined as the model's are, and the metadata of the last chunk counts."""
    whole = message("", Alice=r"\boxed{1}")
    chunks = [
        AIMessageChunk(
            content="",
            additional_kwargs={"thoughts": [{"index": 0, "worker": "Alice", "text": "So \\bo"}]},
            response_metadata={"model_provider": "hogwild"},
        ),
        AIMessageChunk(
            content="", additional_kwargs={"thoughts": [{"index": 0, "text": "xed{1}"}]}
        ),
    ]
    last = AIMessageChunk(content="", response_metadata={"answer": "2"}, chunk_position="last")
    assert FinalAnswer().invoke(whole) == "1"
    assert list(FinalAnswer().transform(iter(chunks))) == ["1"]
    assert list(FinalAnswer().transform(iter([*chunks, last]))) == ["2"]


def test_generations() -> None:
    """As other output parsers take them: the first one counts."""
    one, two = Generation(text=r"\boxed{1}"), ChatGeneration(message=AIMessage(r"\boxed{2}"))
    assert FinalAnswer().invoke([one, two]) == FinalAnswer().parse_result([one, two]) == "1"
    assert FinalAnswer().invoke([two, one]) == "2"
    assert asyncio.run(FinalAnswer().aparse_result([two])) == "2"


def test_what_to_tell_a_model() -> None:
    """The instruction completes the prompt's own words."""
    assert FinalAnswer().get_format_instructions() == (
        "State the final answer as `\\boxed{answer}`."
    )
    assert '"properties"' in FinalAnswer(Point).get_format_instructions()


@pytest.mark.parametrize(
    ("final", "schema"),
    [
        (FinalAnswer(), {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (FinalAnswer(strict=True), {"type": "string"}),
        (
            FinalAnswer("number"),
            {"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]},
        ),
    ],
    ids=str,
)
def test_schemas(final: FinalAnswer, schema: dict[str, Any]) -> None:
    """They say of what type the answer is."""
    made = final.get_output_jsonschema()
    assert {key: made[key] for key in schema} == schema


def test_the_schema_of_a_class() -> None:
    strict = FinalAnswer(Point, strict=True)
    assert strict.get_output_jsonschema() == Point.model_json_schema()
    assert FinalAnswer(first_word).get_output_jsonschema() == {"title": "FinalAnswerOutput"}
    assert FinalAnswer(fallback="number").get_output_jsonschema() == {"title": "FinalAnswerOutput"}


def test_configurable() -> None:
    final = FinalAnswer(fallback="choice").configurable_fields(
        format=ConfigurableField(id="format"), strict=ConfigurableField(id="strict")
    )
    assert final.invoke("There are 5.") is None
    assert final.invoke("There are 5.", {"configurable": {"format": "number"}}) == 5
    with pytest.raises(NoAnswerError):
        final.invoke("Hm.", {"configurable": {"strict": True}})
    assert FinalAnswer().partial(strict=True) == FinalAnswer(strict=True)


# What it refuses.


@pytest.mark.parametrize("kind", ["poem", 5, None, ["boxed"]])
def test_formats_that_are_none(kind: Any) -> None:
    """Among the fallbacks too."""
    with pytest.raises(InvalidAnswerFormatError, match=r"no answer format .* Choose one of boxed"):
        FinalAnswer(kind)
    with pytest.raises(InvalidAnswerFormatError):
        FinalAnswer(fallback=[kind])


@pytest.mark.parametrize("given_one", [None, 5, [], ["a"], {"text": "a"}, b"a"])
def test_what_has_no_text(given_one: Any) -> None:
    """The message names the value, and what would do."""
    with pytest.raises(InvalidMessageError, match=r"There can be no answer in .* give a text"):
        FinalAnswer().invoke(given_one)
    with pytest.raises(InvalidMessageError, match="There can be no answer in"):
        asyncio.run(FinalAnswer().ainvoke(given_one))
