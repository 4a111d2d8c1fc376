"""Runs: a session until its end, its deadline, or until somebody leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hogwild_agents import Engine
from hogwild_agents.langchain import call as runs
from hogwild_agents.langchain.call import Run
from hogwild_agents.langchain.errors import AnswerTimeoutError, SessionFailedError
from hogwild_agents.langchain.responses import Shape
from hogwild_agents.team import Finished, Started
from tests.unit.small_models import soon
from tests.unit.team.scripted import ScriptedModel, fail_after, scripted, team_of

SHAPE = Shape(None, True, lambda text: text, {})


@pytest.fixture
def model() -> ScriptedModel:
    """A tiny one."""
    return scripted()


@pytest.fixture
def engine(model: ScriptedModel) -> Iterator[Engine]:
    """An engine that is left idle, with its memory."""
    with Engine(model) as engine:
        yield engine
        assert soon(lambda: engine._loop.idle or engine.closed)
    assert model.pool.used_pages == 0


def begin(engine: Engine, timeout: float | None = None, budget: int = 5) -> Run:
    """A run of a session."""
    return Run(engine.submit(team_of(budget=budget).session("Q?")), timeout, SHAPE)


def timers() -> int:
    """How many are waiting."""
    return sum(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_to_the_end(engine: Engine) -> None:
    """Events from the first on, and the result, as often as one likes."""
    with begin(engine, timeout=60).begin() as run:
        events = list(run.events())
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Finished)
        assert run.result() == run.result() == events[-1].result
        assert [event.at for event in run.events()] == [event.at for event in events]
    assert soon(lambda: timers() == 0)


async def test_to_the_end_later(engine: Engine) -> None:
    """The same with asyncio."""
    with await begin(engine, timeout=60).abegin() as run:
        events = [event async for event in run.aevents()]
        assert isinstance(events[0], Started)
        assert (await run.aresult()) == events[-1].result
    assert soon(lambda: timers() == 0)


def test_who_leaves(engine: Engine) -> None:
    """Ends it, by an error or without."""
    with begin(engine, budget=4000).begin() as run:
        next(iter(run.events()))
    assert run._handle.result(10).finish_reason == "cancelled"
    with pytest.raises(ZeroDivisionError), begin(engine, budget=4000) as run:
        raise ZeroDivisionError
    assert run._handle.result(10).finish_reason == "cancelled"


@pytest.mark.parametrize("way", ["result", "events", "aresult", "aevents"])
def test_the_deadline(engine: Engine, way: str) -> None:
    """Raises wherever somebody waits, tells how far it came, and never ends a stream as if well."""
    seen: list[Any] = []

    async def alast() -> None:
        async for event in run.aevents():
            seen.append(event)  # noqa: PERF401  all until it raises

    def last() -> None:
        seen.extend(run.events())

    with begin(engine, timeout=0.1, budget=4000).begin() as run:
        ways: dict[str, Any] = {
            "result": run.result,
            "events": last,
            "aresult": lambda: asyncio.run(run.aresult()),
            "aevents": lambda: asyncio.run(alast()),
        }
        with pytest.raises(
            AnswerTimeoutError, match=r"timeout=0\.1 s and [\d,]+ forward passes"
        ) as e:
            ways[way]()
    assert e.value.partial is not None
    assert e.value.partial.passes > 0
    assert not any(isinstance(event, Finished) for event in seen)


@pytest.mark.parametrize("way", ["begin", "abegin"])
def test_a_deadline_before_it_begins(engine: Engine, model: ScriptedModel, way: str) -> None:
    """While it still waits for others."""
    held, begun = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        assert held.wait(10)

    model.before = hold
    other = engine.submit(team_of(budget=5).session("Q?"))
    assert begun.wait(10)
    run = begin(engine, timeout=0.05)
    threading.Timer(0.2, held.set).start()
    with pytest.raises(AnswerTimeoutError) as caught:
        run.begin() if way == "begin" else asyncio.run(run.abegin())
    assert caught.value.partial is not None
    assert caught.value.partial.passes == 0
    assert other.result(10).passes == 5


@pytest.mark.parametrize("way", ["begin", "result", "events", "abegin", "aresult", "aevents"])
def test_a_deadline_of_a_stuck_engine(
    engine: Engine, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Holds all the same: nobody waits for a pass that does not end."""
    held = threading.Event()
    monkeypatch.setattr(runs, "GRACE", 0.05)
    model.before = lambda _: held.wait(30)

    async def alast() -> list[Any]:
        return [event async for event in run.aevents()]

    run = begin(engine, timeout=0.05)
    ways: dict[str, Any] = {
        "begin": run.begin,
        "result": run.result,
        "events": lambda: list(run.events()),
        "abegin": lambda: asyncio.run(run.abegin()),
        "aresult": lambda: asyncio.run(run.aresult()),
        "aevents": lambda: asyncio.run(alast()),
    }
    try:
        with pytest.raises(AnswerTimeoutError, match=r"timeout=0\.05 s.*stuck") as caught:
            ways[way]()
        assert caught.value.partial is None
        assert not engine._loop.idle
    finally:
        held.set()
    assert soon(lambda: engine._loop.idle)


def test_thinking_that_ends_in_time(engine: Engine) -> None:
    """Is no end of the run: it replies."""
    with Run(engine.submit(team_of(budget=4000).session("Q?")), 60, SHAPE, thinking=0.1) as run:
        result = run.result()
    assert result.finish_reason == "stopped"
    assert 0 < result.passes < 4000
    assert soon(lambda: timers() == 0)


@pytest.mark.parametrize("way", ["begin", "abegin"])
def test_a_failure_before_it_begins(engine: Engine, model: ScriptedModel, way: str) -> None:
    """Is told there, so that one may try again."""
    model.before = fail_after(0)
    run = begin(engine, timeout=60)
    with pytest.raises(SessionFailedError, match="on fire"):
        run.begin() if way == "begin" else asyncio.run(run.abegin())
    assert soon(lambda: timers() == 0)


def test_a_failure_after_that(engine: Engine, model: ScriptedModel) -> None:
    """Is told in the stream, before the last event."""
    model.before = fail_after(4)
    seen: list[Any] = []
    with begin(engine).begin() as run, pytest.raises(SessionFailedError, match="on fire"):
        seen.extend(run.events())
    assert not any(isinstance(event, Finished) for event in seen)


def test_an_engine_that_is_closed(engine: Engine) -> None:
    """Is no timeout, and no quiet end."""
    with begin(engine, timeout=60, budget=4000).begin() as run:
        engine.close()
        with pytest.raises(SessionFailedError, match="closed"):
            run.result()
