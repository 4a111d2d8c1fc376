"""The pieces around a real model: the one that ships. What it says is its own affair."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableParallel, RunnablePassthrough

from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.runnables import (
    CollaborationPrompt,
    EarlyFinisher,
    FinalAnswer,
    Interrupt,
    InterruptRecord,
    RedundancyCheck,
)
from hogwild_agents.pocket.tasks import make_task_list
from hogwild_agents.team import InterruptContext, Interruption
from tests.unit.langchain.runnables.pieces import Runs

PROBLEM = make_task_list(seed=4, size=2).text


def always(context: InterruptContext) -> str:
    """Speaks at the beginning of each step."""
    return f"(Step {context.index}.) "


def model(**options: Any) -> ChatHogwild:
    """One that is soon done."""
    return ChatHogwild(**({"prompt": None, "budget": 24, "max_tokens": 16} | options))


def test_prompt_model_answer() -> None:
    """Whole and as a stream, with and without asyncio: the same answer."""
    prompt = CollaborationPrompt(style="brief", examples=False)
    team = model(interrupts=[RedundancyCheck(every=16), Interrupt(always) | str.upper])
    chain = prompt | team | FinalAnswer("boxed")

    async def streamed() -> list[Any]:
        return [answer async for answer in chain.astream(PROBLEM)]

    message = team.invoke(prompt.invoke(PROBLEM))
    answer = FinalAnswer("boxed").invoke(message)
    assert chain.invoke(PROBLEM) == answer
    assert list(chain.stream(PROBLEM)) == [answer]
    assert asyncio.run(streamed()) == [answer]
    assert chain.batch([PROBLEM, PROBLEM]) == [answer, answer]
    if message.response_metadata["answer"] is not None:
        assert answer is not None


def test_the_record_of_a_model() -> None:
    """Every interrupt that a worker reacted to stands in its thoughts."""
    message = model(interrupts=[RedundancyCheck(every=1), Interrupt(always)]).invoke(PROBLEM)
    record = InterruptRecord().invoke(message)
    assert {said.name for said in record} <= {"RedundancyCheck", "always"}
    assert len(record) == len(message.response_metadata["interruptions"])
    thoughts = {block["extras"]["worker"]: block["reasoning"] for block in _thoughts(message)}
    for said in record:
        assert isinstance(said, Interruption)
        assert said.text in thoughts[said.worker]
        assert said.followed in thoughts[said.worker]


def _thoughts(message: AIMessage) -> list[Any]:
    return [block for block in message.content_blocks if block["type"] == "reasoning"]


@pytest.mark.parametrize("budget", [1, 24])
def test_an_early_finisher(budget: int) -> None:
    """A team that is stopped too early, and one worker who answers from what it had."""
    thought = RunnableParallel(problem=RunnablePassthrough(), partial=model(budget=budget))
    final = FinalAnswer("boxed", fallback=lambda text: text or "nothing")
    chain = thought | EarlyFinisher(model(workers=1), answer=final)
    answer = chain.invoke(PROBLEM)
    assert isinstance(answer, str)
    assert asyncio.run(chain.ainvoke(PROBLEM)) == answer


def test_the_run_of_a_chain() -> None:
    """Each piece is a run of its own, inside the chain's."""
    runs = Runs()
    chain = CollaborationPrompt(style="names") | model(budget=4) | FinalAnswer()
    chain.invoke(PROBLEM, {"callbacks": [runs]})
    assert runs.names == ["RunnableSequence", "CollaborationPrompt", "FinalAnswer"]
    assert runs.parents.count(None) == 1
