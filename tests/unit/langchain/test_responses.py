"""Messages from sessions, whole and in chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from hogwild_agents.langchain.messages import REPLY_INDEX
from hogwild_agents.langchain.responses import (
    ChunkMaker,
    MessageOptions,
    as_text,
    content_of,
    metadata_of,
    usage_of,
    whole_message,
)
from hogwild_agents.team import (
    Finished,
    Interruption,
    ReplyToken,
    Result,
    Started,
    StepBegun,
    StepCommitted,
    Token,
)
from hogwild_agents.team.tool_format import ToolCallFormat
from tests.unit.constrained.replies import cut, each_format, places
from tests.unit.langchain.results import THOUGHT, options, plain, result, step
from tests.unit.team.tool_formats import FORMATS, calls

# Messages.


def test_a_whole_message() -> None:
    """Reply, thoughts by worker, figures, and what the session was."""
    message = whole_message(result(reply="Hi.", answer="4", **THOUGHT), options(model_name="m"))
    assert message.content == message.text == "Hi."
    reasoning = [
        {"type": "reasoning", "reasoning": text, "index": place, "extras": {"worker": name}}
        for place, (name, text) in enumerate([("Alice", "A1.\n\n"), ("Bob", "B1.\n\nB2")])
    ]
    assert message.content_blocks == [
        *reasoning,
        {"type": "text", "text": "Hi.", "index": REPLY_INDEX},
    ]
    usage = message.usage_metadata
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (9, 15, 24)
    assert usage["input_token_details"] == {"cache_read": 4}
    assert dict(usage["output_token_details"]) == {
        "reasoning": 12,
        "reply": 3,
        "Alice": 5,
        "Bob": 7,
    }
    told = message.response_metadata
    assert (told["model_name"], told["model_provider"]) == ("m", "hogwild")
    assert (told["answer"], told["passes"], told["workers"]) == ("4", 7, ["Alice", "Bob"])
    assert (told["finish_reason"], told["thinking_ended"]) == ("stop", "budget")
    assert json.loads(json.dumps(told)) == told


@each_format
@given(size=st.integers(0, 200))
def test_a_call_that_was_cut_off(name: str, size: int) -> None:
    """Is told as one that nobody can make, with what there is of it."""
    form = FORMATS[name]
    written = form.write([("f", {"a": "some text", "b": 1})])
    whole = len(written) - len(form.closing)
    message = whole_message(result(reply="Hm. " + written[:size]), options(form))
    if size >= whole:
        assert [call["args"] for call in message.tool_calls] == [{"a": "some text", "b": 1}]
        assert not message.invalid_tool_calls
    elif size >= len(form.opening + "f" + form.between):
        (broken,) = message.invalid_tool_calls
        assert (broken["name"], message.tool_calls) == ("f", [])
        expected = written[len(form.opening + "f" + form.between) : whole]
        assert (broken["args"] or "") + written[size:whole] == expected
        assert message.response_metadata["finish_reason"] == "length"
        _, pieces = merged(told(["Hm. ", written[:size]], result()), form)
        assert pieces.response_metadata["finish_reason"] == "length"
    else:
        assert (message.tool_calls, message.invalid_tool_calls) == ([], [])


def test_without_thoughts() -> None:
    """Not a word of them, but they count."""
    message = whole_message(result(reply="Hi.", **THOUGHT), options(thoughts=False))
    assert [block["type"] for block in message.content_blocks] == ["text"]
    assert "A1" not in str(message)
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"]["reasoning"] == 12


@pytest.mark.parametrize("names", [("reply", "reasoning"), ("audio", "Bob")])
def test_workers_with_odd_names(names: tuple[str, str]) -> None:
    """Their figures do not stand in the place of others."""
    tokens = {names[0]: 5, names[1]: 7}
    told = result(workers=names, tokens=tokens, reply_tokens=3, prompt_tokens=1)
    usage = usage_of(told)
    assert usage["output_token_details"]["reasoning"] == 12
    assert usage["output_tokens"] == 15


@pytest.mark.parametrize(
    ("fields", "called", "reason"),
    [
        ({"reply": "Hi."}, False, "stop"),
        ({"reply": "Hi.", "reply_reason": "length"}, False, "length"),
        ({"reply_reason": None, "answer": "4"}, False, "stop"),
        ({"reply_reason": None}, False, "length"),
        ({"reply": "..."}, True, "tool_calls"),
    ],
)
def test_why_it_ended(fields: dict[str, Any], called: bool, reason: str) -> None:
    assert metadata_of(result(**fields), called=called)["finish_reason"] == reason


def test_the_record_of_interrupts() -> None:
    """As plain dicts."""
    asked = Interruption("check", "Bob", 2, 9, "Redundant? ", answer=True, followed="yes.")
    (record,) = metadata_of(result(interruptions=(asked,)), called=False)["interruptions"]
    assert (record["name"], record["worker"], record["answer"]) == ("check", "Bob", True)


def test_limits_of_a_bare_answer() -> None:
    """Stop strings and the like, which nobody has heeded while it was written."""
    cut = MessageOptions(None, False, lambda text: text[:2], {})
    final = result(reply="4}", answer="abcd", finisher="answer")
    assert whole_message(final, cut).content == "ab"
    assert whole_message(result(reply="abcd", answer="abcd"), cut).content == "abcd"
    maker = ChunkMaker(cut)
    events = [Started(0, 0.0, ("Alice", "Bob"), 9, 4, "answer"), Finished(4, 0.0, final)]
    assert "".join(str(p.content) for event in events for p in maker.chunks(event)) == "ab"


class Odd:
    """Something that is no JSON."""

    def __str__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("answer", "text"),
    [(None, ""), ("a", "a"), (4, "4"), (1.5, "1.5"), ({"ä": [1]}, '{"ä": [1]}'), (Odd(), "odd")],
)
def test_answers_as_text(answer: Any, text: str) -> None:
    assert as_text(answer) == text


def test_what_a_user_reads() -> None:
    """The reply; or the bare answer, or what there is instead of one."""
    assert content_of(result(reply="Hi.", answer="4")) == "Hi."
    assert content_of(result(reply="x}", answer="4", finisher="answer")) == "4"
    assert content_of(result(reply="x", finisher="answer")) == "x"
    assert content_of(result(finisher="answer", answer=4)) == "4"


# Pieces of messages.


def merged(events: Sequence[Any], form: ToolCallFormat | None = None, thoughts: bool = True) -> Any:
    """The pieces that events bring, and all of them together."""
    maker = ChunkMaker(options(form, thoughts=thoughts, model_name="m"))
    pieces = [piece for event in events for piece in maker.chunks(event)]
    whole: Any = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    return pieces, whole


def told(reply: Sequence[str], final: Result, finisher: Any = "reply") -> list[Any]:
    """The events of a session in which Bob and Alice write by turns."""
    return [
        Started(0, 0.0, ("Alice", "Bob"), 9, 4, finisher),
        StepBegun(0, 0.0, "Alice", 1, ""),
        StepBegun(0, 0.0, "Bob", 1, "B"),
        Token(1, 0.0, "Alice", 1, "A1"),
        Token(1, 0.0, "Bob", 1, "1."),
        Token(2, 0.0, "Alice", 1, ""),
        Token(2, 0.0, "Bob", 1, "\n\n"),
        StepCommitted(2, 0.0, step("Bob", 1, "B1.\n\n")),
        Token(3, 0.0, "Alice", 1, ".\n\n"),
        StepBegun(3, 0.0, "Bob", 2, ""),
        Token(4, 0.0, "Bob", 1, "B2"),
        *[ReplyToken(4, 0.0, 1, text) for text in reply],
        Finished(4, 0.0, final),
    ]


@each_format
@settings(max_examples=30, deadline=None, derandomize=True)
@given(before=st.sampled_from(["", "So: ", "a {", "<tool"]), made=calls, places=places)
@example(before="", made=[("f", {"a": {}})], places=[30])
def test_pieces_make_the_message(
    name: str, before: str, made: list[tuple[str, dict[str, Any]]], places: list[int]
) -> None:
    """Together they are what the whole message is, in content, thoughts, calls and figures."""
    form = FORMATS[name]
    reply = before + form.write(made[:1] if form.link is None else made)
    final = result(reply=reply, **THOUGHT)
    pieces, whole = merged(told(cut(reply, places), final), form)
    expected = whole_message(final, options(form, model_name="m"))
    assert plain(whole) == plain(expected)
    assert [piece.chunk_position for piece in pieces] == [None] * (len(pieces) - 1) + ["last"]
    assert sum(piece.usage_metadata is not None for piece in pieces) == 1
    assert sum("model_name" in piece.response_metadata for piece in pieces) == 1


def test_thoughts_come_as_they_are_written() -> None:
    """Each piece with its worker's place, and with the name once."""
    pieces, whole = merged(told(["Hi."], result(reply="Hi.", **THOUGHT)))
    blocks = [block for piece in pieces for block in piece.content_blocks]
    reasoning = [block for block in blocks if block["type"] == "reasoning"]
    assert [block["index"] for block in reasoning] == [1, 0, 1, 1, 0, 1]
    assert [block.get("extras", {}).get("worker") for block in reasoning] == [
        "Bob",
        "Alice",
        *[None] * 4,
    ]
    assert isinstance(whole, AIMessageChunk)
    assert {
        block["extras"]["worker"]: block["reasoning"]
        for block in whole.content_blocks
        if block["type"] == "reasoning"
    } == {"Alice": "A1.\n\n", "Bob": "B1.\n\nB2"}


def test_pieces_without_thoughts() -> None:
    """Nothing comes until the reply does."""
    pieces, whole = merged(told(["Hi", "."], result(reply="Hi.", **THOUGHT)), thoughts=False)
    assert [piece.content for piece in pieces] == ["Hi", ".", ""]
    assert whole.additional_kwargs == {}


def test_the_bare_answer_comes_at_once() -> None:
    """What the early finisher writes is no text for a user; the answer is."""
    final = result(reply="4}", answer="4", finisher="answer", **THOUGHT)
    pieces, whole = merged(told(["4", "}"], final, "answer"), thoughts=False)
    assert [piece.content for piece in pieces] == ["4", ""]
    assert whole.content == "4"
