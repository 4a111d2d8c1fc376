"""A running call: until its end, its timeout, or until the caller leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hogwild_agents import Engine
from hogwild_agents.langchain import call as running
from hogwild_agents.langchain.call import RunningCall
from hogwild_agents.langchain.errors import AnswerTimeoutError, SessionFailedError
from hogwild_agents.langchain.request import Request
from hogwild_agents.team import Event, Finished, Started
from tests.unit.langchain.results import options
from tests.unit.small_models import soon
from tests.unit.team.scripted import ScriptedModel, fail_after, scripted, team_of


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


def request(engine: Engine, budget: int = 5) -> Request:
    """A call that is ready to run."""
    return Request(engine, team_of(budget=budget).session("Q?"), options())


def submit(engine: Engine, timeout: float | None = None, budget: int = 5) -> RunningCall:
    """A call that nobody has waited for."""
    return RunningCall(request(engine, budget).submit(), timeout)


def timers() -> int:
    """How many are waiting."""
    return sum(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_to_the_end(engine: Engine) -> None:
    """Events from the first on, and the result, as often as one likes."""
    with RunningCall.start(request(engine), 60) as call:
        events = list(call.events())
        assert isinstance(events[0], Started)
        last = events[-1]
        assert isinstance(last, Finished)
        assert call.result() == call.result() == last.result
        assert [event.at for event in call.events()] == [event.at for event in events]
    assert soon(lambda: timers() == 0)


async def test_to_the_end_later(engine: Engine) -> None:
    """The same with asyncio."""
    with await RunningCall.astart(request(engine), 60) as call:
        events = [event async for event in call.aevents()]
        assert isinstance(events[0], Started)
        last = events[-1]
        assert isinstance(last, Finished)
        assert await call.aresult() == last.result
    assert soon(lambda: timers() == 0)


def test_who_leaves(engine: Engine) -> None:
    """Ends it, by an error or without."""
    with RunningCall.start(request(engine, 4000), None) as call:
        next(iter(call.events()))
    assert call._handle.result(10).finish_reason == "cancelled"
    with pytest.raises(ZeroDivisionError), submit(engine, budget=4000) as call:
        raise ZeroDivisionError
    assert call._handle.result(10).finish_reason == "cancelled"


WAYS: dict[str, Callable[[RunningCall, list[Event]], object]] = {
    "result": lambda call, _: call.result(),
    "events": lambda call, events: events.extend(call.events()),
    "aresult": lambda call, _: asyncio.run(call.aresult()),
    "aevents": lambda call, events: asyncio.run(collect(call, events)),
}
"""Ways to wait for a call; those that see events note them."""

STARTS: dict[str, Callable[[Request, float | None], RunningCall]] = {
    "start": RunningCall.start,
    "astart": lambda request, timeout: asyncio.run(RunningCall.astart(request, timeout)),
}
"""Ways to start one."""


async def collect(call: RunningCall, events: list[Event]) -> None:
    """Notes the events until there are no more, or an error."""
    async for event in call.aevents():
        events.append(event)  # noqa: PERF401  a comprehension would lose them at an error


@pytest.mark.parametrize("wait", WAYS.values(), ids=WAYS)
def test_the_timeout(engine: Engine, wait: Callable[[RunningCall, list[Event]], object]) -> None:
    """Raises wherever somebody waits, says how far it came, and never ends a stream as if well."""
    events: list[Event] = []
    with (
        RunningCall.start(request(engine, 4000), 0.1) as call,
        pytest.raises(
            AnswerTimeoutError, match=r"timeout=0\.1 s and [\d,]+ forward passes"
        ) as caught,
    ):
        wait(call, events)
    assert caught.value.partial is not None
    assert caught.value.partial.passes > 0
    assert not any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_timeout_before_it_begins(
    engine: Engine,
    model: ScriptedModel,
    start: Callable[[Request, float | None], RunningCall],
) -> None:
    """While it still waits for others."""
    released, begun = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        assert released.wait(10)

    model.before = hold
    other = engine.submit(team_of(budget=5).session("Q?"))
    assert begun.wait(10)
    threading.Timer(0.2, released.set).start()
    with pytest.raises(AnswerTimeoutError) as caught:
        start(request(engine), 0.05)
    assert caught.value.partial is not None
    assert caught.value.partial.passes == 0
    assert other.result(10).passes == 5


@pytest.mark.parametrize("way", [*WAYS, *STARTS])
def test_a_timeout_of_a_stuck_engine(
    engine: Engine, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Holds all the same: nobody waits for a pass that does not end."""
    released = threading.Event()
    monkeypatch.setattr(running, "GRACE", 0.05)

    def hold(_: Any) -> None:
        released.wait(30)

    model.before = hold
    try:
        with pytest.raises(AnswerTimeoutError, match=r"timeout=0\.05 s.*stuck") as caught:
            STARTS[way](request(engine), 0.05) if way in STARTS else WAYS[way](
                submit(engine, 0.05), []
            )
        assert caught.value.partial is None
        assert not engine._loop.idle
    finally:
        released.set()
    assert soon(lambda: engine._loop.idle)


def test_thinking_that_ends_in_time(engine: Engine) -> None:
    """Is no end of the run: it replies."""
    with RunningCall(request(engine, 4000).submit(), 60, thinking_timeout=0.1) as call:
        result = call.result()
    assert result.finish_reason == "stopped"
    assert 0 < result.passes < 4000
    assert soon(lambda: timers() == 0)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_failure_before_it_begins(
    engine: Engine,
    model: ScriptedModel,
    start: Callable[[Request, float | None], RunningCall],
) -> None:
    """Is raised at the start, so that one may try again."""
    model.before = fail_after(0)
    with pytest.raises(SessionFailedError, match="on fire"):
        start(request(engine), 60)
    assert soon(lambda: timers() == 0)


def test_a_failure_after_that(engine: Engine, model: ScriptedModel) -> None:
    """Is told in the stream, before the last event."""
    model.before = fail_after(4)
    seen: list[Any] = []
    with (
        RunningCall.start(request(engine), None) as call,
        pytest.raises(SessionFailedError, match="on fire"),
    ):
        seen.extend(call.events())
    assert not any(isinstance(event, Finished) for event in seen)


def test_an_engine_that_is_closed(engine: Engine) -> None:
    """Is no timeout, and no quiet end."""
    with RunningCall.start(request(engine, 4000), 60) as call:
        engine.close()
        with pytest.raises(SessionFailedError, match="closed"):
            call.result()
