"""A team as a tool: what an agent hands it, what comes back, and what it is told of faults."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ValidationError

from hogwild_agents import TeamTool
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.team_tool import PROGRESS
from hogwild_agents.registry import get_tokenizer
from tests.unit.small_models import chat, counted_passes, folder, shared_engine, soon
from tests.unit.team.voices import Lines, voices

TASK = "Solve these tasks.\n(a) 17 + 25"
LINES: Lines = {0: "Two.\n\n" + r"It is \boxed{4}." + "\n\n", 1: "Hm.\n\nHm.\n\n", 2: "Four."}


def call(**arguments: Any) -> dict[str, Any]:
    """As a model calls it."""
    given = {"problem": "2 + 2?", **arguments}
    return {"type": "tool_call", "id": "call00001", "name": "ask_team", "args": given}


def tool(**options: Any) -> TeamTool:
    """One whose team says little."""
    own = {key: options.pop(key) for key in ("budget", "deadline") if key in options}
    return TeamTool(model=chat(interrupts=[], **options), **own)


def answer(message: Any) -> Any:
    """What came back, with its artifact."""
    assert isinstance(message, ToolMessage)
    return message


# What it is called with, and what comes back.


def test_how_an_agent_sees_it() -> None:
    """A problem, and if need be hints and an effort."""
    described = convert_to_openai_tool(TeamTool())["function"]
    assert described["name"] == "ask_team"
    assert "whole problem" in described["description"]
    parameters = described["parameters"]
    assert parameters["required"] == ["problem"]
    assert parameters["properties"].keys() == {"problem", "hints", "effort"}
    assert parameters["properties"]["effort"]["enum"] == ["low", "medium", "high"]
    named = TeamTool(name="think", description="Thinks.")
    assert convert_to_openai_tool(named)["function"]["description"] == "Thinks."


def test_answer_and_artifact() -> None:
    """The answer for the agent; the transcript and the figures for who wants to look."""
    with voices(get_tokenizer(folder()), LINES) as engine:
        asking = tool(engine=engine, seed=0, budget=40, max_tokens=30)
        told = answer(asking.invoke(call()))
        plain = asking.invoke({"problem": "2 + 2?"})
        later = answer(asyncio.run(asking.ainvoke(call())))
    assert told.content == plain == later.content == "4"
    assert told.status == "success"
    assert (told.tool_call_id, told.name) == ("call00001", "ask_team")
    record = told.artifact
    assert "**Alice [1]:** Two." in record["transcript"]
    assert record["reply"].startswith("Four.")
    assert (record["answer"], record["workers"]) == ("4", ["Alice", "Bob"])
    assert 0 < record["passes"] < 40


def test_where_there_is_no_answer() -> None:
    """The reply is; or a word about it."""
    with voices(get_tokenizer(folder()), {2: "Four, I think."}) as engine:
        told = answer(tool(engine=engine, seed=0, budget=4, max_tokens=14).invoke(call()))
        assert told.content.startswith("Four, I think.")
        assert told.artifact["answer"] is None
    with voices(get_tokenizer(folder()), {}) as engine:
        team = tool(engine=engine, seed=0, budget=4, stop=["x"], max_tokens=9)
        assert "no answer in 4 forward passes" in team.invoke({"problem": "2 + 2?"})


def test_hints_reach_the_team() -> None:
    """With the problem, in its words."""
    seen: list[str] = []
    submit = ChatHogwild.submit

    def watched(self: ChatHogwild, problem: Any, **kwargs: Any) -> Any:
        seen.append(problem[0].text)
        return submit(self, problem, **kwargs)

    with mock.patch.object(ChatHogwild, "submit", watched):
        tool(budget=2).invoke(call(hints=["Count your fingers.", "All."]))
        tool(budget=2).invoke(call())
    assert seen == ["2 + 2?\n\nHints:\n- Count your fingers.\n- All.", "2 + 2?"]


@pytest.mark.parametrize(("effort", "passes"), [("low", 2), ("medium", 8), ("high", 32)])
def test_effort(effort: str, passes: int) -> None:
    """Is a share of the budget: the tool's, or else the model's."""
    assert answer(tool(budget=8).invoke(call(effort=effort))).artifact["passes"] == passes
    by_model = TeamTool(model=chat(budget=8, interrupts=[]))
    assert answer(by_model.invoke(call(effort=effort))).artifact["passes"] == passes


@pytest.mark.parametrize(
    "arguments", [{"effort": "huge"}, {"problem": None}, {"hints": "one"}], ids=str
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    """Are refused by the schema."""
    with pytest.raises(ValidationError):
        tool().invoke(call(**arguments))


# Deadlines, and those who leave.


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_deadline(way: str) -> None:
    """Ends the thinking; the team still answers."""
    asking = tool(budget=4000, deadline=0.5, max_tokens=4)
    message = asking.invoke(call()) if way == "invoke" else asyncio.run(asking.ainvoke(call()))
    record = answer(message).artifact
    assert record["thinking_ended"] == "stopped"
    assert 0 < record["passes"] < 4000
    assert record["reply_passes"] > 0
    assert soon(lambda: not any(isinstance(t, threading.Timer) for t in threading.enumerate()))


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    "limits", [{"deadline": 0.3}, {"timeout": 0.4}, {"deadline": 60, "timeout": 0.4}], ids=str
)
def test_time_that_runs_out(way: str, limits: dict[str, Any]) -> None:
    """Bounds the reply, too; the agent is told what was reached, and the artifact is there."""
    asking = tool(budget=5, max_tokens=3000, **limits)
    message = asking.invoke(call()) if way == "invoke" else asyncio.run(asking.ainvoke(call()))
    told = answer(message)
    assert told.status == "error"
    assert "ran out of time and has no answer" in told.content
    assert "5 forward passes" in told.content
    record = told.artifact
    assert (record["passes"], record["thinking_ended"], record["answer"]) == (5, "cancelled", None)
    assert record["reply"]
    assert record["reply"].strip()[-20:] in told.content
    assert (told.tool_call_id, told.name) == ("call00001", "ask_team")


def test_time_that_runs_out_for_the_reply_only() -> None:
    """Is no failure where the answer was found."""
    with voices(get_tokenizer(folder()), {**LINES, 2: "Four. " * 3000}) as engine:
        asking = tool(engine=engine, seed=0, budget=40, max_tokens=3000, deadline=0.5)
        told = answer(asking.invoke(call()))
    assert (told.status, told.content) == ("success", "4")
    assert told.artifact["thinking_ended"] == "cancelled"


def test_who_handles_that_time_runs_out() -> None:
    """Whoever is named; and who asks without a call is told in words."""
    slow: dict[str, Any] = {"model": chat(interrupts=[], max_tokens=3000, budget=5, timeout=0.2)}
    assert "ran out of time" in TeamTool(**slow).invoke({"problem": "2 + 2?"})
    told = answer(TeamTool(**slow, handle_tool_error="Ask later.").invoke(call()))
    assert (told.status, told.content) == ("error", "Ask later.")
    with pytest.raises(ToolException, match="ran out of time"):
        TeamTool(**slow, handle_tool_error=False).invoke(call())


async def test_who_leaves_stops_the_team() -> None:
    """A cancelled call ends its session."""
    asking = tool(budget=4000)
    engine = shared_engine(asking.model)
    task = asyncio.ensure_future(asking.ainvoke(call()))
    await asyncio.sleep(0.1)
    assert not engine._loop.idle
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(soon, lambda: engine._loop.idle, 2)


# Progress.


def steps(events: list[Any]) -> list[Any]:
    """The custom events among others."""
    return [e["data"] for e in events if e["event"] == "on_custom_event" and e["name"] == PROGRESS]


@pytest.mark.parametrize("way", ["async", "sync"])
def test_progress(way: str) -> None:
    """A custom event for each finished step, with who wrote it and when."""

    async def gathered() -> list[Any]:
        asked: Any = asking if way == "async" else RunnableLambda(asking.invoke)
        return [event async for event in asked.astream_events(call(), version="v2")]

    with voices(get_tokenizer(folder()), LINES) as engine:
        asking = tool(engine=engine, seed=0, budget=40, max_tokens=9)
        told = steps(asyncio.run(gathered()))
    assert {step["worker"] for step in told} == {"Alice", "Bob"}
    alice = [step for step in told if step["worker"] == "Alice"]
    assert [step["index"] for step in alice] == [1, 2]
    assert alice[0]["text"] == "Two.\n\n"
    assert 0 < alice[0]["passes"] < alice[1]["passes"]


@pytest.mark.parametrize("way", ["async", "sync"])
def test_progress_in_a_graph(way: str) -> None:
    """Goes out through LangGraph's own stream, too."""
    graphs = pytest.importorskip("langgraph.graph")

    def work(_: Any) -> dict[str, Any]:
        return {"said": asking.invoke(call()).content}

    async def work_later(_: Any) -> dict[str, Any]:
        return {"said": (await asking.ainvoke(call())).content}

    async def gathered() -> list[Any]:
        return [told async for told in made.astream({"said": ""}, stream_mode="custom")]

    graph = graphs.StateGraph(dict)
    graph.add_node("team", work if way == "sync" else work_later)
    graph.add_edge(graphs.START, "team")
    made = graph.compile()
    with voices(get_tokenizer(folder()), LINES) as engine:
        asking = tool(engine=engine, seed=0, budget=40, max_tokens=9)
        told = (
            list(made.stream({"said": ""}, stream_mode="custom"))
            if way == "sync"
            else asyncio.run(gathered())
        )
        assert asking.invoke({"problem": "2 + 2?"}) == "4"  # no graph around it
    assert all(step.keys() == {PROGRESS} for step in told)
    alice = [step[PROGRESS] for step in told if step[PROGRESS]["worker"] == "Alice"]
    assert [step["index"] for step in alice] == [1, 2]


# Faults.


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_faults_are_told(way: str) -> None:
    """To the agent, in words, instead of being raised; unless that is wished."""

    def ask(asking: TeamTool, given: Any) -> Any:
        return asking.invoke(given) if way == "invoke" else asyncio.run(asking.ainvoke(given))

    for asking, given, words in (
        (TeamTool(model=chat(model="no/such-model")), call(), "no/such-model"),
        (tool(), call(problem=" "), "empty"),
        (tool(), call(problem="x " * 9000), "4,096"),
    ):
        message = answer(ask(asking, given))
        assert message.status == "error"
        assert words in message.content
        assert "could not work on this" in message.content
    raising = TeamTool(model=chat(model="no/such-model"), handle_tool_error=False)
    with pytest.raises(Exception, match="no/such-model"):
        ask(raising, call())


def test_an_engine_closed_underneath() -> None:
    """Is no answer: the agent is told that the team was stopped."""
    asking = tool(model=folder("llama"), budget=4000)
    engine = shared_engine(asking.model)
    threading.Timer(0.1, engine.close).start()
    message = answer(asking.invoke(call()))
    assert message.status == "error"
    assert answer(tool(model=folder("llama"), budget=2).invoke(call())).status == "success"


# Many at once.


def test_many_calls_at_once() -> None:
    """From threads and from one loop, in the same passes, each with its own answer."""

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*(asking.ainvoke(call(problem=p)) for p in problems)))

    asking = tool(budget=6)
    problems = [f"What is {n} + {n}?" for n in range(6)]
    expected = [answer(asking.invoke(call(problem=p))).artifact["transcript"] for p in problems]
    with counted_passes() as passes:
        with ThreadPoolExecutor(6) as pool:
            threads = [*pool.map(lambda p: asking.invoke(call(problem=p)), problems)]
        tasks = asyncio.run(gathered())
    assert max(passes) >= 8
    for told in (threads, tasks):
        assert [answer(message).artifact["transcript"] for message in told] == expected


def test_the_pocket_team() -> None:
    """Without any argument it solves a task."""
    assert "42" in TeamTool().invoke({"problem": TASK})
