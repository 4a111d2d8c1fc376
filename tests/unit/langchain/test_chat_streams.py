"""Streams of the chat model: pieces make the message, in every format, and can be closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableGenerator
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from hogwild_agents import Engine
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.errors import SessionFailedError
from hogwild_agents.langchain.runnables import CollaborationPrompt, RedundancyCheck
from hogwild_agents.registry import get_tokenizer
from tests.unit.langchain.requests import FORMAT, RAW
from tests.unit.langchain.results import plain
from tests.unit.small_models import chat, counted_passes, folder, shared_engine, soon
from tests.unit.team.scripted import fail_after, scripted
from tests.unit.team.voices import voices

ENDLESS: dict[str, Any] = {"budget": 3000, "max_tokens": 3000, "interrupts": []}


def merged(pieces: list[AIMessageChunk]) -> AIMessageChunk:
    """All pieces together."""
    return reduce(add, pieces)


def essence(message: BaseMessage) -> dict[str, Any]:
    """A message without what differs from run to run: seconds, and what the cache had already."""
    assert isinstance(message, AIMessage)
    told = plain(message)
    usage, about = dict(told["usage"]), dict(told["about"])
    usage.pop("input_token_details")
    about.pop("timings")
    about.pop("reading_passes")
    return told | {"usage": usage, "about": about}


choices = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.sampled_from([1, 2, 3, ["Ada", "Emmy"]]),
        "layout": st.sampled_from(["combined", "contiguous", "interleaved"]),
        "budget": st.integers(1, 9),
        "max_tokens": st.integers(1, 9),
        "temperature": st.just(1.0),
        "reasoning": st.booleans(),
        "interrupts": st.just([RedundancyCheck(every=2)]),
        "stop": st.lists(st.sampled_from(["a", "e", " ", "\n", "*", "x"]), min_size=1),
        "answer": st.sampled_from(["number", "boxed", "json"]),
        "prompt": st.just(CollaborationPrompt(style="brief", examples=False)),
    },
)
forms = st.sampled_from(
    [
        {},
        {"finisher": "answer"},
        {"finisher": "reply"},
        {"tools": [RAW], "tool_choice": "any"},
        {"tools": [RAW]},
        {"tools": [RAW], "tool_choice": "power", "parallel_tool_calls": False},
        {"response_format": FORMAT},
        {"response_format": {"type": "json_object"}},
        {"tools": [RAW], "response_format": FORMAT},
    ]
)


@pytest.mark.parametrize("name", ["qwen", "llama", "thinker", "bare"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(options=choices, form=forms, seed=st.integers(0, 9))
def test_the_pieces_make_the_message(
    name: str, options: dict[str, Any], form: dict[str, Any], seed: int
) -> None:
    """Content, thoughts, calls, figures and all else, whatever the options; also with asyncio."""

    async def streamed() -> list[AIMessageChunk]:
        return [piece async for piece in model.astream("2 + 2?", **form)]

    model = chat(name, **options, seed=seed)
    expected = essence(model.invoke("2 + 2?", **form))
    pieces = list(model.stream("2 + 2?", **form)) if seed % 2 else asyncio.run(streamed())
    assert essence(merged(pieces)) == expected
    assert [piece.chunk_position for piece in pieces].index("last") == len(pieces) - 1
    assert sum(piece.usage_metadata is not None for piece in pieces) == 1
    assert sum("model_name" in piece.response_metadata for piece in pieces) == 1
    whole = model.invoke("2 + 2?", **form, stream=True)
    assert essence(whole) == expected
    if options.get("reasoning") is False:
        assert all(block["type"] != "reasoning" for p in pieces for block in p.content_blocks)


@pytest.mark.parametrize("form", [{}, {"tools": [RAW], "tool_choice": "any"}], ids=["text", "call"])
def test_content_blocks_as_content(form: dict[str, Any]) -> None:
    """In the v1 format pieces and message hold the same blocks, and history takes them."""
    model = chat(output_version="v1")
    whole = model.invoke("2 + 2?", **form)
    pieces = list(model.stream("2 + 2?", **form))
    joined = merged(pieces)
    assert isinstance(whole.content, list)
    for message in (whole, joined):
        kinds = [block["type"] for block in message.content_blocks]
        assert kinds == ["reasoning", "reasoning", "tool_call" if form else "text"]
    thoughts = [
        [block["reasoning"] for block in message.content_blocks if block["type"] == "reasoning"]
        for message in (whole, joined)
    ]
    assert thoughts[0] == thoughts[1]
    assert whole.text == joined.text
    assert [call["args"] for call in whole.tool_calls] == [c["args"] for c in joined.tool_calls]
    assert model.invoke([("human", "2 + 2?"), whole, ("human", "And?")]).usage_metadata


def speaking(lines: dict[int, str], **options: Any) -> Any:
    """An engine whose workers say lines, and a model that has it."""
    engine = voices(get_tokenizer(folder()), lines)
    return engine, {"seed": 0, "interrupts": [], **options}


LINES = {0: "Alice adds two.\n\nAnd two.", 1: "Bob waits.\n\nHe does.", 2: "It is four."}


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_events_of_two_workers(version: str) -> None:
    """A lifecycle for each worker's thoughts, by turns, and one for the reply."""
    talk, options = speaking(LINES, budget=12, max_tokens=12)
    with talk as engine:
        model = chat(engine=engine, output_version=version, **options)
        message = model.invoke("2 + 2?")
        events: Any = list(model.stream_events("2 + 2?", version="v3"))
    assert_valid_event_stream(events)
    deltas = [event for event in events if event["event"] == "content-block-delta"]
    finished = [e["content"] for e in events if e["event"] == "content-block-finish"]
    reasoning = [block for block in finished if block["type"] == "reasoning"]
    expected = [b for b in message.content_blocks if b["type"] == "reasoning"]
    assert [b["reasoning"] for b in reasoning] == [b["reasoning"] for b in expected]
    assert [b["extras"]["worker"] for b in reasoning] == ["Alice", "Bob"]
    assert [b["text"] for b in finished if b["type"] == "text"] == [message.text]
    order = [event["index"] for event in deltas]
    changes = sum(one != two for one, two in pairwise(order))
    assert changes > 8, "the workers speak by turns"


def test_events_of_a_chain() -> None:
    """As agents and user interfaces read them."""

    async def gathered() -> list[Any]:
        return [event async for event in chat().astream_events("2 + 2?", version="v2")]

    events = asyncio.run(gathered())
    kinds = [event["event"] for event in events]
    assert kinds[0] == "on_chat_model_start"
    assert kinds[-1] == "on_chat_model_end"
    pieces = [e["data"]["chunk"] for e in events if e["event"] == "on_chat_model_stream"]
    assert essence(merged(pieces)) == essence(events[-1]["data"]["output"])


class Tokens(BaseCallbackHandler):
    """Notes what a tracer hears."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.starts = 0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.starts += 1

    def on_llm_new_token(self, token: str | list[str | dict[str, Any]], **_: Any) -> None:
        self.tokens.append(str(token))


@pytest.mark.parametrize("streaming", [True, False])
def test_invoke_that_streams(streaming: bool) -> None:
    """For callbacks that want every token; one run, whatever the number of workers."""
    heard = Tokens()
    model = chat(streaming=streaming)
    message = model.invoke("2 + 2?", {"callbacks": [heard]})
    assert heard.starts == 1
    assert bool(heard.tokens) == streaming
    assert essence(message) == essence(chat().invoke("2 + 2?"))
    if streaming:
        assert "".join(heard.tokens) == message.text


def test_a_reply_comes_as_it_is_written() -> None:
    """Thoughts while others think, text while more is to come; nothing waits for the end."""
    talk, options = speaking({}, **ENDLESS | {"budget": 4, "max_tokens": 500})
    with talk as engine:
        stream: Any = chat(engine=engine, **options).stream("2 + 2?")
        first = next(piece for piece in stream if piece.content_blocks)
        assert first.content_blocks[0]["type"] == "reasoning"
        assert not engine._loop.idle
        text = next(piece for piece in stream if piece.content)
        assert text.content == "x"
        assert not engine._loop.idle
        stream.close()
        assert soon(lambda: engine._loop.idle)


def test_nothing_but_the_reply() -> None:
    """One flag leaves thoughts out, also of a stream."""
    pieces = list(chat(reasoning=False).stream("2 + 2?"))
    assert all("thoughts" not in piece.additional_kwargs for piece in pieces)
    assert all(block["type"] == "text" for p in pieces for block in p.content_blocks)
    assert merged(pieces).usage_metadata == chat(reasoning=False).invoke("2 + 2?").usage_metadata


def test_a_chain_streams() -> None:
    """Through what takes pieces as they come."""

    def loud(pieces: Any) -> Any:
        for piece in pieces:
            yield piece.text.upper()

    said = list((chat() | RunnableGenerator(loud)).stream("2 + 2?"))
    assert len(said) > 8
    assert "".join(said) == chat().invoke("2 + 2?").text.upper()


# Streams that nobody reads to their end.


def close(model: ChatHogwild) -> None:
    stream: Any = model.stream("2 + 2?")
    next(stream)
    stream.close()


def forget(model: ChatHogwild) -> None:
    for _ in model.stream("2 + 2?"):
        break


def break_off(model: ChatHogwild) -> None:
    async def read() -> None:
        async for _ in model.astream("2 + 2?"):
            break
        await asyncio.sleep(0)

    asyncio.run(read())


def aclose(model: ChatHogwild) -> None:
    async def read() -> None:
        stream: Any = model.astream("2 + 2?")
        await anext(stream)
        await stream.aclose()

    asyncio.run(read())


def cancel_stream(model: ChatHogwild) -> None:
    async def read() -> None:
        async for _ in model.astream("2 + 2?"):
            pass

    _cancelled(read)


def cancel_call(model: ChatHogwild) -> None:
    _cancelled(lambda: model.ainvoke("2 + 2?"))


def cancel_batch(model: ChatHogwild) -> None:
    _cancelled(lambda: model.abatch(["2 + 2?"] * 4))


def time_out(model: ChatHogwild) -> None:
    async def late() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.ainvoke("2 + 2?"), 0.1)

    asyncio.run(late())


def _cancelled(begin: Any) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(begin())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


@pytest.mark.parametrize(
    "leave",
    [close, forget, break_off, aclose, cancel_stream, cancel_call, cancel_batch, time_out],
    ids=lambda way: way.__name__,
)
def test_who_leaves_stops_the_session(leave: Any) -> None:
    """Within a pass or two; the engine is idle then, and as good as new."""
    model = chat(**ENDLESS)
    engine = shared_engine(model)
    expected = chat().invoke("2 + 2?").content
    with counted_passes() as passes:
        leave(model)
        before = len(passes)
        assert soon(lambda: engine._loop.idle, 2)
        assert 0 < before < 1000
        assert len(passes) - before <= 3
    assert chat().invoke("2 + 2?").content == expected


# Faults.


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
@pytest.mark.parametrize("passes", [0, 4])
def test_a_model_that_breaks_down(way: str, passes: int) -> None:
    """No stream hangs: the error comes in the caller's thread, with what was reached."""
    broken = scripted()
    broken.before = fail_after(passes)
    with Engine(broken) as engine:
        model = chat(engine=engine, max_retries=0)

        async def streamed() -> list[Any]:
            return [piece async for piece in model.astream("2 + 2?")]

        ways: dict[str, Callable[[], Any]] = {
            "invoke": lambda: model.invoke("2 + 2?"),
            "stream": lambda: list(model.stream("2 + 2?")),
            "ainvoke": lambda: asyncio.run(model.ainvoke("2 + 2?")),
            "astream": lambda: asyncio.run(streamed()),
        }
        with pytest.raises(SessionFailedError, match="the device is on fire") as caught:
            ways[way]()
    assert caught.value.partial is not None
    assert caught.value.partial.finish_reason == "error"
    assert caught.value.partial.passes <= passes
