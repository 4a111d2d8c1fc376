"""Converts Inspect's messages to LangChain's, and replies back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolCall
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic_core import to_jsonable_python

_STOPS: Mapping[str, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
}


def to_messages(messages: Iterable[ChatMessage]) -> list[BaseMessage]:
    """A conversation for `ChatHogwild`, which refuses anything but text and says where it is."""
    return [_to_message(message) for message in messages]


def _to_message(message: ChatMessage) -> BaseMessage:
    content = _to_content(message.content)
    match message:
        case ChatMessageSystem():
            return SystemMessage(content)
        case ChatMessageUser():
            return HumanMessage(content)
        case ChatMessageTool():
            failed = message.error is not None
            return ToolMessage(
                message.error.message if message.error is not None else content,
                tool_call_id=message.tool_call_id or "",
                name=message.function,
                status="error" if failed else "success",
            )
        case ChatMessageAssistant():
            calls = [
                {"id": call.id, "name": call.function, "args": call.arguments}
                for call in message.tool_calls or ()
            ]
            return AIMessage(content, tool_calls=calls)


def _to_content(content: str | list[Content]) -> Any:
    """LangChain content: text, or blocks; of blocks other than text only the type is kept."""
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": block.text}
        if isinstance(block, ContentText)
        else {"type": block.type}
        for block in content
    ]


def to_output(message: AIMessage, model: str) -> ModelOutput:
    """Converts a message of `ChatHogwild` to Inspect's output, which its logs store.

    Each worker's thoughts become a reasoning part, with the worker's name if there are several
    workers. The metadata, such as `passes` and the extracted `answer`, is that of the message.
    """
    thoughts = message.additional_kwargs.get("thoughts", ())
    metadata = message.response_metadata
    reply = ChatMessageAssistant(
        content=[
            *(_reasoning(thought, named=len(metadata["workers"]) > 1) for thought in thoughts),
            ContentText(text=message.text),
        ],
        tool_calls=_calls(message) or None,
        model=model,
        source="generate",
    )
    stop = _STOPS.get(metadata["finish_reason"], "unknown")
    return ModelOutput(
        model=model,
        choices=[ChatCompletionChoice(message=reply, stop_reason=stop)],
        usage=_usage(message),
        time=metadata["timings"]["total"],
        metadata=to_jsonable_python(metadata, fallback=str),
    )


def _reasoning(thought: Mapping[str, Any], *, named: bool) -> ContentReasoning:
    heading = f"**{thought['worker']}**\n\n" if named else ""
    return ContentReasoning(
        reasoning=heading + thought["text"], internal={"worker": thought["worker"]}
    )


def _calls(message: AIMessage) -> list[ToolCall]:
    """Tool calls; a call that `max_tokens` cut off has a parse error."""
    complete = [
        ToolCall(id=call["id"] or "", function=call["name"], arguments=call["args"])
        for call in message.tool_calls
    ]
    truncated = [
        ToolCall(
            id=call["id"] or "",
            function=call["name"] or "",
            arguments={},
            parse_error=f"The call was cut off by max_tokens: {call['args']}",
        )
        for call in message.invalid_tool_calls
    ]
    return complete + truncated


def _usage(message: AIMessage) -> ModelUsage | None:
    """Token usage; Inspect counts cached prompt tokens separately."""
    usage = message.usage_metadata
    if usage is None:
        return None
    cached = usage["input_token_details"]["cache_read"]
    return ModelUsage(
        input_tokens=usage["input_tokens"] - cached,
        input_tokens_cache_read=cached,
        output_tokens=usage["output_tokens"],
        reasoning_tokens=usage["output_token_details"]["reasoning"],
        total_tokens=usage["total_tokens"],
    )
