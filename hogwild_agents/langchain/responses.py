"""From a session's events to LangChain's messages: thoughts, the reply, calls of tools, figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import (
    ToolCallChunk,
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)

from hogwild_agents.langchain.messages import PROVIDER, THOUGHTS
from hogwild_agents.team import Event, Finished, ReplyToken, Result, Started, StepBegun, Token
from hogwild_agents.team.tool_format import ToolCallFormat

ReplyDelta: TypeAlias = str | ToolCallChunk
"""A piece of a reply: of its text, or of a call."""


class ToolCallParser:
    """Reads a reply as it grows: text, and calls of tools in a model's form.

    Args:
        form: How the model writes calls; None if the reply is all text.
    """

    def __init__(self, form: ToolCallFormat | None) -> None:
        self._form = form
        self._mode: Literal["text", "name", "arguments", "between"] = "text"
        self._held = ""
        self._calls = -1
        self._depth = 0
        self._quoted = self._escaped = False

    def push(self, new: str) -> Iterator[ReplyDelta]:
        """The text and the pieces of calls that are now sure."""
        if self._form is None:
            if new:
                yield new
            return
        self._held += new
        read: dict[str, Callable[[ToolCallFormat], Iterator[ReplyDelta]]] = {
            "text": self._read_text,
            "name": self._read_name,
            "arguments": self._read_arguments,
            "between": self._read_between,
        }
        while True:
            mode, held = self._mode, self._held
            yield from read[mode](self._form)
            if (mode, held) == (self._mode, self._held):
                return

    def flush(self) -> Iterator[ReplyDelta]:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        if self._mode == "name" and self._form is not None:  # a call that never came to its name
            held = self._form.opening + held
        if self._mode in ("text", "name") and held:
            yield held

    @property
    def cut(self) -> bool:
        """Whether the text ends within a call."""
        return self._mode == "arguments"

    def _read_text(self, form: ToolCallFormat) -> Iterator[str]:
        before, found, after = self._held.partition(form.opening)
        if found:
            self._mode, self._held = "name", after
            before = before.rstrip()
        else:  # white space may turn out to stand before a call
            before = self._held.rstrip()
            begun = (
                n
                for n in range(len(form.opening) - 1, 0, -1)
                if self._held.endswith(form.opening[:n])
            )
            kept = len(self._held) - next(begun, 0)
            before = before[:kept].rstrip()
            self._held = self._held[len(before) :]
        if before:
            yield before

    def _read_name(self, form: ToolCallFormat) -> Iterator[ToolCallChunk]:
        name, found, after = self._held.partition(form.between)
        if found:
            self._mode, self._held = "arguments", after
            self._calls += 1
            yield self._piece("", name=name, id=f"call_{uuid4().hex}")

    def _read_arguments(self, _: ToolCallFormat) -> Iterator[ToolCallChunk]:
        for place, letter in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = letter == "\\"
                self._quoted = letter != '"'
            else:
                self._quoted = letter == '"'
                self._depth += (letter in "{[") - (letter in "}]")
                if self._depth == 0:
                    said, self._held = self._held[: place + 1], self._held[place + 1 :]
                    self._mode = "between"
                    yield self._piece(said)
                    return
        said, self._held = self._held, ""
        if said:
            yield self._piece(said)

    def _read_between(self, form: ToolCallFormat) -> Iterator[ToolCallChunk]:
        """After a call: another one, or the end of them all."""
        link = form.link or form.closing
        if form.link is not None and self._held.startswith(link):
            self._mode, self._held = "name", self._held[len(link) :]
        elif not link.startswith(self._held) and self._held.startswith(form.closing):
            self._mode, self._held = "text", self._held[len(form.closing) :]
        yield from ()

    def _piece(self, arguments: str, **more: Any) -> ToolCallChunk:
        piece = {"name": None, "id": None, **more}
        return tool_call_chunk(args=arguments, index=self._calls, **piece)


@dataclass(frozen=True, slots=True)
class Shape:
    """How what came of a session is to look as a message.

    Attributes:
        calls: How the model writes calls of tools, if it may.
        thoughts: Whether the message shows what the workers thought.
        cut: What limits do to a bare answer; replies heed them as they are written.
        about: Goes into the metadata.
    """

    calls: ToolCallFormat | None
    thoughts: bool
    cut: Callable[[str], str]
    about: Mapping[str, Any]

    def content(self, result: Result) -> str:
        """What a user should read."""
        text = content_of(result)
        return text if result.finisher == "reply" else self.cut(text)

    def metadata(self, result: Result, *, called: bool, cut: bool) -> dict[str, Any]:
        """What the message tells of its session."""
        return {**metadata_of(result, called=called, cut=cut), **self.about}


def whole_message(result: Result, shape: Shape) -> AIMessage:
    """All that came of a session as one message."""
    reader = ToolCallParser(shape.calls)
    pieces = [*reader.push(shape.content(result)), *reader.flush()]
    calls, broken = _calls(pieces)
    thoughts = _thoughts(result) if shape.thoughts else []
    return AIMessage(
        "".join(piece for piece in pieces if isinstance(piece, str)),
        tool_calls=calls,
        invalid_tool_calls=broken,
        additional_kwargs={THOUGHTS: thoughts} if thoughts else {},
        usage_metadata=usage_of(result),
        response_metadata=shape.metadata(result, called=bool(calls), cut=bool(broken)),
    )


class ChunkMaker:
    """Makes pieces of a message from a session's events, as they come.

    Args:
        shape: How the message is to look.
    """

    def __init__(self, shape: Shape) -> None:
        self._reader = ToolCallParser(shape.calls)
        self._shape = shape
        self._workers: tuple[str, ...] = ()
        self._replies = True
        self._shown: set[str] = set()
        self._called = False

    def take(self, event: Event) -> Iterator[AIMessageChunk]:
        """The pieces that an event brings."""
        match event:
            case Started(workers=workers, finisher=finisher):
                self._workers, self._replies = workers, finisher == "reply"
            case StepBegun(worker=worker, text=text) | Token(worker=worker, text=text):
                if self._shape.thoughts and text:
                    yield self._thought(worker, text)
            case ReplyToken(text=text) if self._replies:
                yield from map(self._piece, self._reader.push(text))
            case Finished(result=result):
                yield from self._end(result)

    def _thought(self, worker: str, text: str) -> AIMessageChunk:
        thought: dict[str, Any] = {"text": text, "index": self._workers.index(worker)}
        if worker not in self._shown:  # once, as the texts of pieces are joined
            self._shown.add(worker)
            thought["worker"] = worker
        return _chunk(additional_kwargs={THOUGHTS: [thought]})

    def _piece(self, piece: ReplyDelta) -> AIMessageChunk:
        if isinstance(piece, str):
            return _chunk(content=piece)
        self._called = True
        return _chunk(tool_call_chunks=[piece])

    def _end(self, result: Result) -> Iterator[AIMessageChunk]:
        if not self._replies:
            yield from map(self._piece, self._reader.push(self._shape.content(result)))
        yield from map(self._piece, self._reader.flush())
        last = _chunk(usage_metadata=usage_of(result), chunk_position="last")
        last.response_metadata |= self._shape.metadata(
            result, called=self._called, cut=self._reader.cut
        )
        yield last


def _chunk(content: str = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, response_metadata={"model_provider": PROVIDER}, **fields)


def content_of(result: Result) -> str:
    """What a user should read: the reply, or the bare answer where there is no more."""
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
    thought = {name: "".join(s.text for s in result.steps_of(name)) for name in result.workers}
    return [
        {"text": text, "worker": name, "index": place}
        for place, (name, text) in enumerate(thought.items())
        if text
    ]


def _calls(
    pieces: Sequence[ReplyDelta],
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Whole calls, and those whose arguments were cut off."""
    joined: dict[Any, dict[str, Any]] = {}
    for piece in pieces:
        if not isinstance(piece, str):
            call = joined.setdefault(piece["index"], {"args": "", **_named(piece)})
            call["args"] += piece["args"] or ""
    calls, broken = [], []
    for call in joined.values():
        try:
            given = json.loads(call["args"])
        except ValueError as error:
            broken.append(invalid_tool_call(**call, error=str(error)))
        else:
            calls.append(tool_call(name=call["name"], id=call["id"], args=given))
    return calls, broken


def _named(piece: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": piece["name"], "id": piece["id"]}


def usage_of(result: Result) -> UsageMetadata:
    """Tokens of the prompt, of the thinking by worker, and of the reply."""
    thought = sum(result.tokens.values())
    details: dict[str, int] = {**result.tokens, "reasoning": thought, "reply": result.reply_tokens}
    usage: dict[str, Any] = {
        "input_tokens": result.prompt_tokens,
        "output_tokens": thought + result.reply_tokens,
        "total_tokens": result.prompt_tokens + thought + result.reply_tokens,
        "input_token_details": {"cache_read": result.reused_tokens},
        "output_token_details": details,
    }
    return cast("UsageMetadata", usage)  # the details by worker are ours


def metadata_of(result: Result, *, called: bool, cut: bool = False) -> dict[str, Any]:
    """What a message tells of its session.

    Args:
        result: Of the session.
        called: Whether it calls tools.
        cut: Whether it ends within a call.
    """
    short = result.reply_reason == "length" or (
        result.reply_reason is None and result.answer is None
    )
    reason = "tool_calls" if called and not cut else "length" if short or cut else "stop"
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
