"""Many calls at once: they share forward passes, and nobody waits on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration

from hogwild_agents import Engine, SharedCacheModel
from hogwild_agents import registry as engines
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain import chat_models
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.request import prepare
from tests.unit.langchain.requests import RAW
from tests.unit.small_models import WAIT, chat, counted_passes, folder, shared_engine

QUESTIONS: list[LanguageModelInput] = [f"What is {n} + {n}?" for n in range(8)]


def texts(messages: Any) -> list[str]:
    return [message.text for message in messages]


async def _astreamed(model: Any, questions: list[str]) -> list[str]:
    async def one(question: str) -> str:
        return "".join([piece.text async for piece in model.astream(question)])

    return list(await asyncio.gather(*map(one, questions)))


def _generated(result: Any) -> list[str]:
    return [generations[0].text for generations in result.generations]


def prompts(questions: Sequence[Any]) -> list[Any]:
    return [[HumanMessage(question)] for question in questions]


WAYS: dict[str, Any] = {
    "batch": lambda model, given: texts(model.batch(given)),
    "abatch": lambda model, given: texts(asyncio.run(model.abatch(given))),
    "completed": lambda model, given: texts(
        message for _, message in sorted(model.batch_as_completed(given), key=lambda pair: pair[0])
    ),
    "generate": lambda model, given: _generated(model.generate(prompts(given))),
    "agenerate": lambda model, given: _generated(asyncio.run(model.agenerate(prompts(given)))),
    "astream": lambda model, given: asyncio.run(_astreamed(model, given)),
}


@pytest.mark.parametrize("way", WAYS)
def test_eight_in_the_passes_of_one(way: str) -> None:
    """Each as if it were alone, in hardly more passes than one takes."""
    model = chat(budget=10, max_tokens=10)
    with counted_passes() as one_by_one:
        expected = [model.invoke(question).text for question in QUESTIONS]
    assert len({*expected}) > 1
    with counted_passes() as packed:
        assert WAYS[way](model, QUESTIONS) == expected
    assert len(packed) < len(one_by_one) / 3
    assert max(packed) >= 10, "streams of many sessions in one pass"


def test_limits_on_how_many_at_once() -> None:
    """Are heeded where somebody sets one."""
    model = chat(workers=1)
    with counted_passes() as passes:
        model.batch(QUESTIONS, {"max_concurrency": 1})
    assert max(passes) <= 2
    with counted_passes() as passes:
        model.batch(QUESTIONS, [{"max_concurrency": 1}] * 8)
    assert max(passes) <= 2
    with counted_passes() as passes:
        model.batch(QUESTIONS, {"max_concurrency": None, "tags": ["x"]})
    assert max(passes) > 2


def test_none_and_one() -> None:
    """Of nothing comes nothing."""
    model = chat()
    assert model.batch([]) == []
    assert texts(model.batch(["Hi."])) == [model.invoke("Hi.").text]
    assert _generated(model.generate(prompts(["Hi."]))) == [model.invoke("Hi.").text]


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_one_that_fails(way: str) -> None:
    """Is told among the rest, if that is wished; else it is raised."""
    model = chat()
    given: list[LanguageModelInput] = ["Hi.", "", "Ho."]

    def run(**options: Any) -> Any:
        if way == "batch":
            return model.batch(given, **options)
        return asyncio.run(model.abatch(given, **options))

    first, failed, last = run(return_exceptions=True)
    assert isinstance(failed, InvalidRequestError)
    assert [first.text, last.text] == [model.invoke("Hi.").text, model.invoke("Ho.").text]
    with pytest.raises(InvalidRequestError):
        run()
    with pytest.raises(HogwildError):
        model.generate(prompts(given))


def test_options_for_all() -> None:
    """And a configuration for each."""
    model = chat()
    for message in model.batch(QUESTIONS[:3], workers=3, budget=2):
        assert message.response_metadata["passes"] == 2
        assert len(message.response_metadata["workers"]) == 3
    bound = model.bind_tools([RAW], tool_choice="any", parallel_tool_calls=False)
    assert all(len(message.tool_calls) == 1 for message in bound.batch(QUESTIONS[:3]))
    result = model.generate(prompts(QUESTIONS[:3]), stop=["\0"], max_tokens=2)
    for generations in result.generations:
        generation = generations[0]
        assert isinstance(generation, ChatGeneration)
        assert isinstance(generation.message, AIMessage)
        usage: Any = generation.message.usage_metadata
        assert usage["output_token_details"]["reply"] <= 2


class Runs(BaseCallbackHandler):
    """Notes runs and their tags."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.tags: list[Any] = []
        self.ended = 0

    def on_chat_model_start(self, *_: Any, run_id: Any, tags: Any = None, **__: Any) -> None:
        self.runs.append(run_id)
        self.tags.append(tags)

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.ended += 1


def test_runs_of_a_generation() -> None:
    """One for each prompt, with an id of its own; the first has the id that was given."""
    runs, run_id = Runs(), uuid4()
    model = chat()
    result = model.generate(
        prompts(QUESTIONS[:3]), callbacks=[runs], run_id=run_id, tags=["t"], run_name="n"
    )
    assert len({*runs.runs}) == 3
    assert run_id in runs.runs
    assert all("t" in tags for tags in runs.tags)
    assert runs.ended == 3
    assert result.run is not None
    assert [info.run_id for info in result.run].count(run_id) == 1


def test_what_surrounds_a_call_reaches_it() -> None:
    """Usage is counted wherever the calls run."""
    for way in ("batch", "generate"):
        with get_usage_metadata_callback() as counted:
            WAYS[way](chat(), QUESTIONS[:3])
        (usage,) = counted.usage_metadata.values()
        assert usage["output_tokens"] == 3 * 20


# The event loop.


async def test_nothing_blocks_the_event_loop() -> None:
    """The loop goes on while a call is prepared and in every pass."""
    model = chat(budget=10, max_tokens=10)
    loop = asyncio.get_running_loop()
    run = SharedCacheModel.run
    turns = 0

    def wait_for_a_turn() -> None:
        nonlocal turns
        turn = threading.Event()
        loop.call_soon_threadsafe(turn.set)
        assert turn.wait(WAIT), "the event loop is blocked"
        turns += 1

    def run_in_turn(*args: Any) -> Any:
        wait_for_a_turn()
        return run(*args)

    def prepare_in_turn(*args: Any) -> Any:
        wait_for_a_turn()
        return prepare(*args)

    async def stream() -> None:
        async for _ in model.astream("Hi."):
            pass

    with (
        mock.patch.object(SharedCacheModel, "run", run_in_turn),
        mock.patch.object(chat_models, "prepare", prepare_in_turn),
    ):
        await asyncio.gather(
            model.ainvoke("Hi."),
            model.abatch(QUESTIONS[:2]),
            stream(),
            model.ainvoke("Hi.", tools=[RAW], tool_choice="any"),
            model.agenerate(prompts(QUESTIONS[:2])),
        )
    assert turns > 20


async def test_the_first_load_does_not_block_it_either() -> None:
    """However long it takes; and whoever leaves meanwhile leaves nothing behind."""
    load, cancelled = SharedCacheModel.from_pretrained, threading.Event()

    def wait_and_load(*args: Any, **options: Any) -> Any:
        assert cancelled.wait(WAIT), "the event loop is blocked"
        return load(*args, **options)

    model = chat(dtype="bfloat16", budget=4)
    with (
        mock.patch.dict(engines._engines, clear=True),
        mock.patch.object(SharedCacheModel, "from_pretrained", wait_and_load),
    ):
        tasks = [asyncio.ensure_future(model.ainvoke("Hi.")) for _ in range(3)]
        submitted = asyncio.ensure_future(model.asubmit("Hi."))
        await asyncio.sleep(0.2)
        tasks[0].cancel()
        submitted.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        with pytest.raises(asyncio.CancelledError):
            await submitted
        submit = mock.Mock(wraps=Engine.submit)
        with mock.patch.object(Engine, "submit", lambda *given: submit(*given)):
            assert all(await asyncio.gather(*tasks[1:]))
        engine = shared_engine(model)
        assert submit.call_count == 2, "and none of those that were cancelled"
        assert len([*engines._engines]) == 1, "loaded once"
        engine.close()


def test_many_threads_load_one_model() -> None:
    """Once, and all get the same."""
    found: list[Any] = []
    path = folder()
    with mock.patch.dict(engines._engines, clear=True):
        threads = [
            threading.Thread(target=lambda: found.append(engines.get_engine(path, "cpu")))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len({id(engine) for engine in found}) == 1
        found[0].close()
