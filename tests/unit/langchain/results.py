"""Results of sessions, and messages made from them."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage

from hogwild_agents.langchain.responses import MessageOptions
from hogwild_agents.team import Result, Step
from hogwild_agents.team.events import Timings
from hogwild_agents.team.tool_format import ToolCallFormat


def result(**fields: Any) -> Result:
    """The result of a session of two workers."""
    defaults: dict[str, Any] = {
        "workers": ("Alice", "Bob"),
        "layout": "combined",
        "finish_reason": "budget",
        "reply_reason": "stop",
        "timings": Timings(0.1, 0.2, 0.3, 0.4),
    }
    return Result(**defaults | fields)


def options(
    tool_format: ToolCallFormat | None = None, *, thoughts: bool = True, **metadata: Any
) -> MessageOptions:
    """How a message looks."""
    return MessageOptions(tool_format, thoughts, lambda text: text, metadata)


def step(worker: str, index: int, text: str) -> Step:
    """A finished step."""
    return Step(worker, index, text, text, len(text), 1, 2)


THOUGHT: dict[str, Any] = {
    "history": (step("Alice", 1, "A1.\n\n"), step("Bob", 1, "B1.\n\n")),
    "unfinished": (step("Bob", 2, "B2"),),
    "tokens": {"Alice": 5, "Bob": 7},
    "prompt_tokens": 9,
    "reused_tokens": 4,
    "reply_tokens": 3,
    "passes": 7,
}
"""Fields of a result whose workers thought."""


def plain(message: AIMessage) -> dict[str, Any]:
    """A message as a dict, without ids, which differ in every one."""
    thoughts = message.additional_kwargs.get("thoughts", [])
    blocks: list[Any] = [
        {key: value for key, value in block.items() if key != "id"}
        for block in message.content_blocks
    ]
    return {
        "content": message.content,
        "calls": [(call["name"], call["args"]) for call in message.tool_calls],
        "broken": [(call["name"], call["args"]) for call in message.invalid_tool_calls],
        "blocks": sorted(blocks, key=lambda block: block["index"]),
        "thoughts": sorted(thoughts, key=lambda thought: thought["index"]),
        "usage": message.usage_metadata,
        "about": message.response_metadata,
    }
