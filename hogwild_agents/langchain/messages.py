"""LangChain's messages as a conversation for a chat template, and their content blocks.

A message's content is the reply. Its content blocks are one reasoning block per worker, whose
`index` is the worker's place in the team, then one text block, then the tool calls. Chunks of a
stream are merged by these indices.
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
from langchain_core.messages import content as content_types
from langchain_core.messages.block_translators import register_translator

from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.names import MAX_WORKERS

Content: TypeAlias = str | Sequence[str | Mapping[str, Any]]
"""A message's content: a text, or a list of texts and blocks."""

PROVIDER = "hogwild"
THOUGHTS = "thoughts"
"""Key in `additional_kwargs` for what the workers thought."""

COLLABORATION = "collaboration"
"""Key in `additional_kwargs` for the text about working together in a system message."""

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
_SKIPPED_BLOCKS = (
    *("reasoning", "thinking", "redacted_thinking"),
    *("tool_call", "tool_use", "tool_result"),
)
"""Types of blocks without text for the model: thoughts, which it is not shown again, and tool calls
and results, which are handled separately."""


class Collaboration(NamedTuple):
    """The text of a `CollaborationPrompt` in a conversation, and the workers that it names."""

    text: str
    workers: tuple[str, ...]


def without_collaboration(
    messages: Sequence[BaseMessage],
) -> tuple[Collaboration | None, list[BaseMessage]]:
    """Splits a conversation into the text of a `CollaborationPrompt`, if any, and the rest."""
    collaboration: Collaboration | None = None
    rest: list[BaseMessage] = []
    for message in messages:
        mark = message.additional_kwargs.get(COLLABORATION)
        if isinstance(message, SystemMessage) and mark and message.text.startswith(mark["text"]):
            collaboration = Collaboration(mark["text"], tuple(mark["workers"]))
            text = message.text.removeprefix(collaboration.text).strip()
            rest += [SystemMessage(text)] if text else []
        else:
            rest.append(message)
    return collaboration, rest


def to_conversation(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as dicts with `role`, `content` and the other keys that a chat template reads.

    Raises:
        InvalidRequestError: A message has an unknown role, or holds something else than text.
    """
    conversation: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        conversation += _turns(index, message)
    return conversation


def _turns(index: int, message: BaseMessage) -> list[dict[str, Any]]:
    """A message, after the tool results among its content blocks."""
    results = _tool_results(index, message.content)
    turn: dict[str, Any] = {
        "role": _role(index, message),
        "content": _text(index, message.content, skip_unknown=isinstance(message, AIMessage)),
    }
    calls = _calls_of(message) if isinstance(message, AIMessage) else []
    if calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"] or f"call{index:03}{number:02}",
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for number, call in enumerate(calls)
        ]
    if isinstance(message, AIMessage) and message.invalid_tool_calls:
        invalid = [f"{call['name']}({call['args']})" for call in message.invalid_tool_calls]
        turn["content"] = "\n".join(filter(None, [turn["content"], *invalid]))
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
        if message.status == "error" and not turn["content"].lower().startswith("error"):
            turn["content"] = f"Error: {turn['content']}"
    if message.name:
        turn["name"] = message.name
    return [*results, turn] if turn["content"] or not results else results


def _calls_of(message: AIMessage) -> list[Mapping[str, Any]]:
    """The tool calls of a message; one made from JSON may have them only among its blocks."""
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
    """Tool results among a user's content blocks, as Anthropic writes them."""
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
    role = message.role if isinstance(message, ChatMessage) else message.type
    raise InvalidRequestError(
        f"Message {index} has the role {role!r}: use one of {', '.join(sorted(_ROLES))}."
    )


def _text(index: int, content: Content, *, skip_unknown: bool = False) -> str:
    """The text of a message's content, with one line per block.

    Args:
        index: The message's place in the conversation.
        content: Its content.
        skip_unknown: Whether to skip other blocks than text: another provider's model may have
            written the message.

    Raises:
        InvalidRequestError: A block is not text.
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
        elif not skip_unknown and kind not in _SKIPPED_BLOCKS:
            raise InvalidRequestError(
                f"Message {index} holds a block of type {kind!r}, and this model reads text only: "
                "leave it out (images, audio, files), or put its text into the message."
            )
    return "\n".join(filter(None, parts))


# Content blocks of replies.


def _blocks(message: AIMessage) -> list[content_types.ContentBlock]:
    """The content blocks of a whole message."""
    blocks = _thought_and_text_blocks(message)
    for number, call in enumerate(message.tool_calls):
        block: Any = {"type": "tool_call", **{key: call[key] for key in ("id", "name", "args")}}
        block["index"] = CALLS_INDEX + number
        blocks.append(block)
    return blocks


def _chunk_blocks(chunk: AIMessageChunk) -> list[content_types.ContentBlock]:
    """The content blocks of a chunk, or of all chunks merged."""
    if chunk.chunk_position == "last" and chunk.tool_calls:
        return _blocks(chunk)
    blocks = _thought_and_text_blocks(chunk)
    for part in chunk.tool_call_chunks:
        block: Any = {"type": "tool_call_chunk"}
        block |= {key: part[key] for key in ("id", "name", "args")}
        block["index"] = CALLS_INDEX + (part["index"] or 0)
        blocks.append(block)
    return blocks


def _thought_and_text_blocks(message: AIMessage) -> list[content_types.ContentBlock]:
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
