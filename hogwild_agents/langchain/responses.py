"""Turns a session's events and its result into LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import (
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)

from hogwild_agents.constrained.tool_parser import ReplyDelta, ToolCallDelta, ToolCallParser
from hogwild_agents.langchain.messages import PROVIDER, THOUGHTS
from hogwild_agents.team import Event, Finished, ReplyToken, Result, Started, StepBegun, Token
from hogwild_agents.team.tool_format import ToolCallFormat


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """How a session's result becomes a message.

    Attributes:
        tool_format: How the model writes tool calls; None if it may make none.
        show_thoughts: Whether the message shows what the workers thought.
        cut_answer: Applies `stop` and `max_tokens` to a bare answer. A reply obeys them already
            while it is written.
        metadata: Entries to add to the message's metadata.
    """

    tool_format: ToolCallFormat | None
    show_thoughts: bool
    cut_answer: Callable[[str], str]
    metadata: Mapping[str, Any]

    def content(self, result: Result) -> str:
        """The text for the user."""
        text = content_of(result)
        return text if result.finisher == "reply" else self.cut_answer(text)

    def metadata_of(self, result: Result, *, called: bool, cut: bool) -> dict[str, Any]:
        """The message's metadata."""
        return {**metadata_of(result, called=called, cut=cut), **self.metadata}


def whole_message(result: Result, options: MessageOptions) -> AIMessage:
    """The whole result as one message."""
    parser = ToolCallParser(options.tool_format)
    deltas = [*parser.push(options.content(result)), *parser.flush()]
    calls, invalid_calls = _tool_calls(deltas)
    thoughts = _thoughts(result) if options.show_thoughts else []
    return AIMessage(
        "".join(delta for delta in deltas if isinstance(delta, str)),
        tool_calls=calls,
        invalid_tool_calls=invalid_calls,
        additional_kwargs={THOUGHTS: thoughts} if thoughts else {},
        usage_metadata=usage_of(result),
        response_metadata=options.metadata_of(result, called=bool(calls), cut=bool(invalid_calls)),
    )


class ChunkMaker:
    """Turns events into chunks of a message as they happen.

    Args:
        options: How the message looks.
    """

    def __init__(self, options: MessageOptions) -> None:
        self._options = options
        self._parser = ToolCallParser(options.tool_format)
        self._workers: tuple[str, ...] = ()
        self._replies = True
        self._named_workers: set[str] = set()
        self._called = False

    def chunks(self, event: Event) -> Iterator[AIMessageChunk]:
        """The chunks that an event brings."""
        match event:
            case Started(workers=workers, finisher=finisher):
                self._workers, self._replies = workers, finisher == "reply"
            case StepBegun(worker=worker, text=text) | Token(worker=worker, text=text):
                if self._options.show_thoughts and text:
                    yield self._thought_chunk(worker, text)
            case ReplyToken(text=text) if self._replies:
                yield from map(self._reply_chunk, self._parser.push(text))
            case Finished(result=result):
                yield from self._last_chunks(result)

    def _thought_chunk(self, worker: str, text: str) -> AIMessageChunk:
        thought: dict[str, Any] = {"text": text, "index": self._workers.index(worker)}
        if worker not in self._named_workers:  # only once: LangChain concatenates texts of chunks
            self._named_workers.add(worker)
            thought["worker"] = worker
        return _chunk(additional_kwargs={THOUGHTS: [thought]})

    def _reply_chunk(self, delta: ReplyDelta) -> AIMessageChunk:
        if isinstance(delta, str):
            return _chunk(content=delta)
        self._called = True
        return _chunk(tool_call_chunks=[_tool_call_chunk(delta)])

    def _last_chunks(self, result: Result) -> Iterator[AIMessageChunk]:
        if not self._replies:
            yield from map(self._reply_chunk, self._parser.push(self._options.content(result)))
        yield from map(self._reply_chunk, self._parser.flush())
        last = _chunk(usage_metadata=usage_of(result), chunk_position="last")
        last.response_metadata |= self._options.metadata_of(
            result, called=self._called, cut=self._parser.cut
        )
        yield last


def _chunk(content: str = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, response_metadata={"model_provider": PROVIDER}, **fields)


def _tool_call_chunk(delta: ToolCallDelta) -> ToolCallChunk:
    call_id = None if delta.name is None else _new_call_id()
    return tool_call_chunk(name=delta.name, args=delta.arguments, id=call_id, index=delta.index)


def _new_call_id() -> str:
    return f"call_{uuid4().hex}"


def content_of(result: Result) -> str:
    """The text for the user: the reply, or the bare answer where there is no reply."""
    if result.finisher == "reply":
        return result.reply
    return as_text(result.answer) or result.reply


def as_text(answer: Any) -> str:
    """An answer of any type as text."""
    if answer is None or isinstance(answer, str):
        return answer or ""
    try:
        return json.dumps(answer, ensure_ascii=False)
    except TypeError:
        return str(answer)


def _thoughts(result: Result) -> list[dict[str, Any]]:
    texts = {
        worker: "".join(step.text for step in result.steps_of(worker)) for worker in result.workers
    }
    return [
        {"text": text, "worker": worker, "index": index}
        for index, (worker, text) in enumerate(texts.items())
        if text
    ]


def _tool_calls(deltas: Sequence[ReplyDelta]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """The complete calls, and those whose arguments were cut off."""
    names: dict[int, str | None] = {}
    arguments: dict[int, str] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            names.setdefault(delta.index, delta.name)
            arguments[delta.index] = arguments.get(delta.index, "") + delta.arguments
    calls: list[ToolCall] = []
    invalid_calls: list[InvalidToolCall] = []
    for index, name in names.items():
        text, call_id = arguments[index], _new_call_id()
        try:
            calls.append(tool_call(name=name or "", args=json.loads(text), id=call_id))
        except ValueError as error:
            invalid_calls.append(
                invalid_tool_call(name=name, args=text, id=call_id, error=str(error))
            )
    return calls, invalid_calls


def usage_of(result: Result) -> UsageMetadata:
    """Tokens of the prompt, of each worker's thinking, and of the reply."""
    thought = sum(result.tokens.values())
    details: dict[str, int] = {**result.tokens, "reasoning": thought, "reply": result.reply_tokens}
    usage: dict[str, Any] = {
        "input_tokens": result.prompt_tokens,
        "output_tokens": thought + result.reply_tokens,
        "total_tokens": result.prompt_tokens + thought + result.reply_tokens,
        "input_token_details": {"cache_read": result.reused_tokens},
        "output_token_details": details,
    }
    return cast("UsageMetadata", usage)  # LangChain's type does not have the workers' names


def metadata_of(result: Result, *, called: bool, cut: bool = False) -> dict[str, Any]:
    """What a message says about its session.

    Args:
        result: The session's result.
        called: Whether the message calls tools.
        cut: Whether it ends within a call.
    """
    too_short = result.reply_reason == "length" or (
        result.reply_reason is None and result.answer is None
    )
    reason = "tool_calls" if called and not cut else "length" if too_short or cut else "stop"
    return {
        "model_provider": PROVIDER,
        "finish_reason": reason,
        "thinking_ended": result.finish_reason,
        "answer": result.answer,
        "workers": [*result.workers],
        "layout": result.layout,
        "passes": result.passes,
        "reply_passes": result.reply_passes,
        "reading_passes": result.reading_passes,
        "interruptions": [asdict(record) for record in result.interruptions],
        "timings": asdict(result.timings),
    }
