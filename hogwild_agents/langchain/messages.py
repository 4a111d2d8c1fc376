"""LangChain's messages as a conversation that a chat template takes, and back.

The reply is a message's content. What the workers thought is kept beside it, and stands among the
content blocks: one reasoning block for each worker, whose `index` is the worker's place in the
team, then one text block, then the calls of tools. Pieces of a stream merge by these indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.names import MAX_WORKERS

Content: TypeAlias = str | Sequence[str | Mapping[str, Any]]
"""A message's content: a text, or a list of texts and blocks."""

PROVIDER = "hogwild"
THOUGHTS = "thoughts"
"""Where a message keeps what the workers thought, in `additional_kwargs`."""

COLLABORATION = "collaboration"
"""Where a system message keeps the part that says how to work together."""

REPLY_INDEX = MAX_WORKERS
CALLS_INDEX = REPLY_INDEX + 1

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
}
_SILENT = ("reasoning", "thinking", "redacted_thinking", "tool_call", "tool_use", "tool_result")
"""Blocks that are no text and stand for nothing new: thoughts, which models are not shown again,
and calls and results, which have turns of their own."""


class Collaboration(NamedTuple):
    """What a `CollaborationPrompt` has put before messages: its text, and for which workers."""

    text: str
    workers: tuple[str, ...]


def without_collaboration(
    messages: Sequence[BaseMessage],
) -> tuple[Collaboration | None, list[BaseMessage]]:
    """What a `CollaborationPrompt` has put before messages, and the messages without it."""
    told: Collaboration | None = None
    rest: list[BaseMessage] = []
    for message in messages:
        part = message.additional_kwargs.get(COLLABORATION)
        if isinstance(message, SystemMessage) and part and message.text.startswith(part["text"]):
            told = Collaboration(part["text"], tuple(part["workers"]))
            left = message.text.removeprefix(told.text).strip()
            rest += [SystemMessage(left)] if left else []
        else:
            rest.append(message)
    return told, rest


def to_conversation(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as `{"role": ..., "content": ...}` and whatever else a chat template reads.

    Raises:
        InvalidRequestError: A message has no known role, or holds something else than text.
    """
    conversation: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        conversation += _turns(index, message)
    return conversation


def _turns(index: int, message: BaseMessage) -> list[dict[str, Any]]:
    """A message, after the results of tools that stand among its blocks."""
    results = _tool_results(index, message.content)
    turn: dict[str, Any] = {
        "role": _role(index, message),
        "content": _text(index, message.content, own=isinstance(message, AIMessage)),
    }
    calls = _calls_of(message) if isinstance(message, AIMessage) else []
    if calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"] or f"call{index:03}{n:02}",
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for n, call in enumerate(calls)
        ]
    if isinstance(message, AIMessage) and message.invalid_tool_calls:
        broken = [f"{call['name']}({call['args']})" for call in message.invalid_tool_calls]
        turn["content"] = "\n".join(filter(None, [turn["content"], *broken]))
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
        if message.status == "error" and not turn["content"].lower().startswith("error"):
            turn["content"] = f"Error: {turn['content']}"
    if message.name:
        turn["name"] = message.name
    return [*results, turn] if turn["content"] or not results else results


def _calls_of(message: AIMessage) -> list[Mapping[str, Any]]:
    """The calls of a message; one that comes from JSON may have them among its blocks only."""
    if message.tool_calls or isinstance(message.content, str):
        return [*message.tool_calls]
    return [
        {
            "id": block.get("id"),
            "name": block["name"],
            "args": block.get("input", block.get("args")),
        }
        for block in message.content
        if isinstance(block, Mapping) and block.get("type") in ("tool_use", "tool_call")
    ]


def _tool_results(index: int, content: Content) -> list[dict[str, Any]]:
    """Results of tools that stand among a user's blocks, as Anthropic writes them."""
    blocks = [] if isinstance(content, str) else content
    return [
        {
            "role": "tool",
            "content": _text(index, block.get("content") or ""),
            "tool_call_id": block.get("tool_use_id"),
        }
        for block in blocks
        if isinstance(block, Mapping) and block.get("type") == "tool_result"
    ]


def _role(index: int, message: BaseMessage) -> str:
    match message:
        case SystemMessage():
            return "system"
        case HumanMessage():
            return "user"
        case AIMessage():
            return "assistant"
        case ToolMessage() | FunctionMessage():
            return "tool"
        case ChatMessage() if message.role.lower() in _ROLES:
            return _ROLES[message.role.lower()]
    given = message.role if isinstance(message, ChatMessage) else message.type
    raise InvalidRequestError(
        f"Message {index} has the role {given!r}: use one of {', '.join(sorted(_ROLES))}."
    )


def _text(index: int, content: Content, *, own: bool = False) -> str:
    """The text of a message's content, the blocks of a list as lines.

    A model's own message may hold whatever another provider's model has put there.

    Raises:
        InvalidRequestError: A block is no text.
    """
    if isinstance(content, str):
        return content
    parts: list[str] = []
    for block in content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block.get("text"), str) and kind in ("text", "text-plain", None):
            parts.append(block["text"])
        elif not own and kind not in _SILENT:
            raise InvalidRequestError(
                f"Message {index} holds a block of type {kind!r}, and this model reads text only: "
                "leave it out (images, audio, files), or put its text into the message."
            )
    return "\n".join(filter(None, parts))


# What comes back.


def _blocks(message: AIMessage) -> list[types.ContentBlock]:
    """The content blocks of a whole message."""
    blocks = _spoken_blocks(message)
    for number, call in enumerate(message.tool_calls):
        block: Any = {"type": "tool_call", **{key: call[key] for key in ("id", "name", "args")}}
        block["index"] = CALLS_INDEX + number
        blocks.append(block)
    return blocks


def _chunk_blocks(chunk: AIMessageChunk) -> list[types.ContentBlock]:
    """The content blocks of a piece of a message, or of all its pieces together."""
    if chunk.chunk_position == "last" and chunk.tool_calls:
        return _blocks(chunk)
    blocks = _spoken_blocks(chunk)
    for piece in chunk.tool_call_chunks:
        block: Any = {"type": "tool_call_chunk"}
        block |= {key: piece[key] for key in ("id", "name", "args")}
        block["index"] = CALLS_INDEX + (piece["index"] or 0)
        blocks.append(block)
    return blocks


def _spoken_blocks(message: AIMessage) -> list[types.ContentBlock]:
    blocks: list[Any] = []
    for thought in message.additional_kwargs.get(THOUGHTS, ()):
        block = {"type": "reasoning", "reasoning": thought["text"], "index": thought["index"]}
        if thought.get("worker"):
            block["extras"] = {"worker": thought["worker"]}
        blocks.append(block)
    if message.text:
        blocks.append({"type": "text", "text": str(message.text), "index": REPLY_INDEX})
    return blocks


register_translator(PROVIDER, _blocks, _chunk_blocks)
