"""Agents: LangChain's own, with a team as their model, as their tool, and with a schema."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from pydantic import BaseModel, Field

from hogwild_agents import ChatHogwild, TeamTool
from hogwild_agents.langchain.team_tool import PROGRESS
from tests.unit.langchain.requests import Ticket
from tests.unit.small_models import chat, shared_engine, soon

TASK = "Solve these tasks.\n(a) 17 + 25"


@tool
def look_up(key: str) -> str:
    """Looks something up."""
    return f"nothing about {key}"


class Script(BaseChatModel):
    """A model that says what a test has written, whatever tools there are."""

    messages: list[AIMessage]

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.messages.pop(0))])

    @property
    def _llm_type(self) -> str:
        return "script"


def script(*messages: AIMessage) -> Script:
    return Script(messages=[*messages])


def asked(name: str, **arguments: Any) -> AIMessage:
    """A message that calls a tool."""
    call: Any = {"type": "tool_call", "id": "call00001", "name": name, "args": arguments}
    return AIMessage("", tool_calls=[call])


def talk(agent: Any, text: str = TASK) -> list[Any]:
    """The messages of a conversation with an agent."""
    messages: list[Any] = agent.invoke({"messages": [HumanMessage(text)]})["messages"]
    return messages


# A team as the tool.


def test_an_agent_that_asks_a_team() -> None:
    """The pocket model's team solves it; the agent has the answer, we have the transcript."""
    model = script(asked("ask_team", problem=TASK), AIMessage("42, says the team."))
    *_, told, last = talk(create_agent(model, tools=[TeamTool(deadline=60)]))
    assert isinstance(told, ToolMessage)
    assert "42" in told.content
    assert "Alice [1]" in told.artifact["transcript"]
    assert last.content == "42, says the team."


def test_progress_of_a_team_reaches_who_watches_the_agent() -> None:
    """As custom events."""

    async def gathered() -> list[Any]:
        model = script(asked("ask_team", problem=TASK), AIMessage("Done."))
        agent = create_agent(model, tools=[TeamTool()])
        events = agent.astream_events({"messages": [HumanMessage(TASK)]}, version="v2")
        return [event async for event in events]

    events = asyncio.run(gathered())
    told = [e["data"] for e in events if e["event"] == "on_custom_event" and e["name"] == PROGRESS]
    assert told
    assert all({"worker", "index", "text", "passes"} == step.keys() for step in told)


def test_an_agent_hears_of_faults() -> None:
    """And goes on."""
    model = script(asked("ask_team", problem=" "), AIMessage("I see."))
    *_, told, last = talk(create_agent(model, tools=[TeamTool(model=chat())]))
    assert (told.status, last.content) == ("error", "I see.")
    assert "empty" in told.content


def test_two_questions_at_once() -> None:
    """As two calls in one message: both are answered."""
    calls: list[Any] = [
        {"type": "tool_call", "id": f"call0000{n}", "name": "ask_team", "args": {"problem": TASK}}
        for n in range(2)
    ]
    model = script(AIMessage("", tool_calls=calls), AIMessage("Done."))
    told = [m for m in talk(create_agent(model, tools=[TeamTool()])) if isinstance(m, ToolMessage)]
    assert len(told) == 2
    assert all("42" in message.content for message in told)


# A team as the model.


def test_a_random_model_as_agent() -> None:
    """Whatever it says, all that it calls is a call; the loop is LangChain's."""
    agent = create_agent(chat(temperature=1.0, seed=2, max_tokens=30), tools=[look_up])
    messages = agent.invoke({"messages": [HumanMessage("Hi.")]}, {"recursion_limit": 12})[
        "messages"
    ]
    assert all(not getattr(message, "invalid_tool_calls", []) for message in messages)


@pytest.mark.parametrize("tools", [[], [look_up]], ids=["alone", "with tools"])
@pytest.mark.parametrize("kind", ["class", "provider", "tool"])
def test_a_form_of_the_answer(kind: str, tools: list[Any]) -> None:
    """By the provider's way, which the profile promises, and by a tool's: always fits."""
    form: Any = {
        "class": Ticket,
        "provider": ProviderStrategy(Ticket),
        "tool": ToolStrategy(Ticket),
    }
    answers = []
    for seed in range(4):
        model = chat(workers=1, temperature=1.0, max_tokens=30, seed=seed)
        agent = create_agent(model, tools=tools, response_format=form[kind])
        with contextlib.suppress(GraphRecursionError):  # a random model may call tools for ever
            state = agent.invoke({"messages": [HumanMessage("Hi.")]}, {"recursion_limit": 12})
            answers.append(state["structured_response"])
    assert all(isinstance(answer, Ticket) for answer in answers)
    assert tools or len(answers) == 4


class Answer(BaseModel):
    """An answer."""

    number: int = Field(ge=0, le=99)


def test_the_pocket_team_as_agent_with_a_form() -> None:
    """One worker or two; what it thinks is no part of the answer."""
    for workers in (1, 2):
        agent = create_agent(ChatHogwild(workers=workers, budget=30), response_format=Answer)
        state = agent.invoke({"messages": [HumanMessage("Give a number.")]})
        assert isinstance(state["structured_response"], Answer)


def test_an_agent_that_is_cancelled() -> None:
    """Stops its team."""

    async def cancelled() -> None:
        agent = create_agent(chat(budget=3000, max_tokens=3000), tools=[look_up])
        task = asyncio.ensure_future(agent.ainvoke({"messages": [HumanMessage("Hi.")]}))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    engine = shared_engine(chat())
    assert soon(lambda: engine._loop.idle, 2)
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_middleware_that_counts_tokens() -> None:
    """As by the model's own tokenizer, and heeds its profile."""
    model = chat(workers=1)
    middleware = SummarizationMiddleware(model, trigger=("fraction", 0.05), keep=("messages", 2))
    agent: Any = create_agent(model, middleware=[middleware])
    history = [HumanMessage("A long story. " * 40), AIMessage("Aha."), HumanMessage("And now?")]
    state = agent.invoke({"messages": history})
    assert "A long story. A long story." not in str(state["messages"][1:])


def test_an_agent_streams() -> None:
    """Messages piece by piece, thoughts with their workers."""
    agent: Any = create_agent(chat())
    pieces = [
        piece
        for piece, _ in agent.stream({"messages": [HumanMessage("Hi.")]}, stream_mode="messages")
    ]
    kinds = {block["type"] for piece in pieces for block in piece.content_blocks}
    assert kinds == {"reasoning", "text"}
    assert "".join(piece.text for piece in pieces) == chat().invoke("Hi.").text
