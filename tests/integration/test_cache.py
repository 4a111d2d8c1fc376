"""LangChain's caches: what was asked before is answered at once, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from hogwild_agents import RedundancyCheck
from tests.unit.langchain.requests import FORMAT, RAW, add
from tests.unit.small_models import chat, counted_passes, folder


def _generation() -> Generation:
    """What a team has said."""
    message = chat().invoke("Hi.")
    return ChatGeneration(message=AIMessage(message.content, id="1"))


class TestCache(SyncCacheTestSuite):
    """The suite, with what a team says."""

    @pytest.fixture
    def cache(self) -> BaseCache:
        return InMemoryCache()

    def get_sample_llm_string(self) -> str:
        return chat()._get_llm_string()

    def get_sample_generation(self) -> Generation:
        return _generation()


class TestAsyncCache(AsyncCacheTestSuite):
    """The same with asyncio."""

    @pytest.fixture
    async def cache(self) -> BaseCache:
        return InMemoryCache()

    def get_sample_llm_string(self) -> str:
        return chat()._get_llm_string()

    def get_sample_generation(self) -> Generation:
        return _generation()


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """One for all models, as long as a test runs."""
    before, cache = get_llm_cache(), InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(before)


def worked(ask: Any) -> bool:
    """Whether a call takes any forward pass."""
    with counted_passes() as passes:
        assert ask()
    return bool(passes)


@pytest.mark.usefixtures("cache")
def test_asked_before() -> None:
    """By an equal model, in any way to call it: the same message without any work."""
    warm: dict[str, Any] = {"temperature": 1.0, "seed": 1}
    first = chat(**warm).invoke("Hi.")
    assert not worked(lambda: chat(**warm).invoke("Hi."))
    assert not worked(lambda: asyncio.run(chat(**warm).ainvoke("Hi.")))
    assert not worked(lambda: chat(**warm).batch(["Hi."] * 3))
    again = chat(**warm).invoke("Hi.")
    assert again.content == first.content
    assert again.content_blocks == first.content_blocks
    assert again.response_metadata["passes"] == first.response_metadata["passes"]


OTHERS: list[dict[str, Any]] = [
    {"seed": 2},
    {"workers": 3},
    {"workers": ["Ada", "Emmy"]},
    {"layout": "contiguous"},
    {"budget": 3},
    {"max_tokens": 3},
    {"temperature": 0.5},
    {"finisher": "answer"},
    {"reasoning": False},
    {"interrupts": [RedundancyCheck(every=9)]},
    {"interrupts": [lambda _: None]},
    {"stop": ["x"]},
    {"model": folder("llama")},
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("other", OTHERS, ids=lambda given: f"{[*given]}")
def test_asked_otherwise(other: dict[str, Any]) -> None:
    """Another seed, team, limit or model is another question; for good, or for one call."""
    chat(temperature=1.0).invoke("Hi.")
    given = {"temperature": 1.0} | other
    assert worked(lambda: chat(**given).invoke("Hi."))
    assert not worked(lambda: chat(**given).invoke("Hi."))
    assert worked(lambda: chat(temperature=1.0).invoke("Ho.", **other))
    assert not worked(lambda: chat(temperature=1.0).invoke("Ho.", **other))


@pytest.mark.usefixtures("cache")
def test_another_conversation_or_form() -> None:
    """So is another prompt, and another form of the reply."""
    model = chat()
    model.invoke("Hi.")
    assert worked(lambda: model.invoke("Hi!"))
    assert worked(lambda: model.invoke([("system", "Be brief."), ("human", "Hi.")]))
    assert worked(lambda: model.bind_tools([RAW], tool_choice="any").invoke("Hi."))
    assert not worked(lambda: model.bind_tools([RAW], tool_choice="any").invoke("Hi."))
    assert worked(lambda: model.bind_tools([add], tool_choice="any").invoke("Hi."))
    assert worked(lambda: model.invoke("Hi.", response_format=FORMAT))


@pytest.mark.usefixtures("cache")
def test_functions_that_look_alike() -> None:
    """Addresses are used again; a function that is gone is not the next one."""

    def ask(word: str) -> str:
        return str(chat(finisher="answer", answer=lambda _: word, budget=12).invoke("Hi.").content)

    words = [f"word{number}" for number in range(20)]
    assert [ask(word) for word in words] == words


def test_a_cache_of_its_own() -> None:
    """Or none, whatever others have."""
    mine = InMemoryCache()
    assert worked(lambda: chat(cache=mine).invoke("Hi."))
    assert not worked(lambda: chat(cache=mine).invoke("Hi."))
    assert worked(lambda: chat(cache=False).invoke("Hi."))


@pytest.mark.usefixtures("cache")
def test_calls_from_a_cache() -> None:
    """Are calls still."""
    bound = chat().bind_tools([RAW], tool_choice="any")
    first, second = bound.invoke("Hi."), bound.invoke("Hi.")
    assert first.tool_calls
    assert second.tool_calls == first.tool_calls
