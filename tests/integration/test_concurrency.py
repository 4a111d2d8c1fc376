"""Many callers of one engine: the same texts as one by one, and no harm by those who leave."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage

from hogwild_agents import ChatHogwild
from hogwild_agents.langchain.errors import AnswerTimeoutError
from hogwild_agents.pocket.tasks import make_task_list
from hogwild_agents.registry import get_engine
from tests.unit.langchain.requests import FORMAT, RAW
from tests.unit.small_models import chat, counted_passes, shared_engine, soon

torch.set_num_threads(1)
QUESTIONS: list[LanguageModelInput] = [f"What is {n} + {3 * n}?" for n in range(32)]


def model(**options: Any) -> ChatHogwild:
    """A random model that decodes greedily: what it says depends on every token that it saw."""
    return chat(**{"budget": 10, "max_tokens": 10} | options)


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """What comes one by one: thoughts and reply."""
    return [said(model().invoke(question)) for question in QUESTIONS]


def said(message: Any) -> str:
    """Thoughts and reply of a message."""
    return f"{message.additional_kwargs['thoughts']}{message.text}"


def test_the_texts_differ(expected: list[str]) -> None:
    """Or else the tests here would prove nothing."""
    assert len({*expected}) > 28


def test_tasks_of_one_loop(expected: list[str]) -> None:
    """32 at once."""

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*(model().ainvoke(question) for question in QUESTIONS)))

    with counted_passes() as passes:
        assert [*map(said, asyncio.run(gathered()))] == expected
    assert max(passes) > 30


def test_batches_of_many_threads(expected: list[str]) -> None:
    """Four, with eight calls each."""
    parts = [QUESTIONS[start : start + 8] for start in range(0, 32, 8)]
    with ThreadPoolExecutor(4) as pool:
        told = [message for part in pool.map(model().batch, parts) for message in part]
    assert [*map(said, told)] == expected


def test_all_kinds_of_calls_at_once(expected: list[str]) -> None:
    """Streams, tools, schemas, other teams and other limits disturb nobody."""
    kinds: list[dict[str, Any]] = [
        {},
        {"workers": 3, "layout": "contiguous"},
        {"workers": 1, "temperature": 1.0},
        {"tools": [RAW], "tool_choice": "any"},
        {"response_format": FORMAT},
        {"budget": 1},
    ]

    async def one(number: int) -> str | None:
        kind = kinds[number % len(kinds)]
        if number % 2:
            pieces = [piece async for piece in model().astream(QUESTIONS[number], **kind)]
            message: AIMessage = sum(pieces[1:], pieces[0])
        else:
            message = await model().ainvoke(QUESTIONS[number], **kind)
        return None if kind else said(message)

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*(one(number) for number in range(32))))

    told = asyncio.run(gathered())
    assert {n: text for n, text in enumerate(told) if text} == {
        n: expected[n] for n in range(0, 32, len(kinds))
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_a_cancel_storm(expected: list[str], seed: int) -> None:
    """Calls that are cancelled, closed and timed out at odd moments, and some that are not."""
    rng = random.Random(seed)

    async def leave(number: int) -> str:
        endless = model(budget=3000, max_tokens=3000)
        moment = rng.random() * 0.3
        way = number % 4
        if way == 0:
            return said(await model().ainvoke(QUESTIONS[number]))
        if way == 1:
            task = asyncio.ensure_future(endless.ainvoke(QUESTIONS[number]))
            await asyncio.sleep(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif way == 2:
            count = rng.randrange(1, 9)
            async for _ in endless.astream(QUESTIONS[number], tools=[RAW]):
                count -= 1
                if not count:
                    break
        else:
            with pytest.raises(AnswerTimeoutError):
                await endless.ainvoke(QUESTIONS[number], timeout=moment + 0.01)
        return ""

    async def storm() -> list[str]:
        return list(await asyncio.gather(*(leave(number) for number in range(32))))

    assert asyncio.run(storm())[::4] == expected[::4]
    engine = shared_engine(model())
    assert soon(lambda: engine._loop.idle, 5)
    scheduler = engine._loop.scheduler
    pool = engine.model.pool
    assert soon(lambda: pool.used_pages <= pool.limit_pages // 4), "kept prompts, and no more"
    assert [*map(said, model().batch(QUESTIONS))] == expected
    scheduler.prefix_cache.clear()
    assert soon(lambda: engine._loop.idle and pool.used_pages == 0)


def test_no_thread_is_left() -> None:
    """But the engines' own."""
    before = {thread.name for thread in threading.enumerate()}
    model(timeout=60).batch(QUESTIONS)
    list(model().stream("Hi."))
    assert soon(lambda: {thread.name for thread in threading.enumerate()} <= before, 5)


def test_the_pocket_model_in_a_crowd() -> None:
    """The weights that ship, with the words of tasks: the same texts alone and together."""
    pocket = ChatHogwild(workers=2, budget=16)
    problems: list[LanguageModelInput] = [make_task_list(seed, 2).text for seed in range(6)]
    alone = [said(pocket.invoke(problem)) for problem in problems]
    assert [*map(said, pocket.batch(problems))] == alone
    assert get_engine("pocket")._loop.idle or soon(lambda: get_engine("pocket")._loop.idle)
