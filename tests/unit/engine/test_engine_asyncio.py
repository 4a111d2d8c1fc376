"""Handles in asyncio: nothing blocks the loop, and nothing polls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest import mock

import pytest

from hogwild_agents.engine import Engine, Handle
from hogwild_agents.errors import SessionFailedError
from tests.unit.engine.jobs import SPEC, WAIT, Gate, Outcome, Rows, Team, within

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """In a new event loop, with a time limit."""
    return asyncio.run(asyncio.wait_for(main, WAIT))


def held(engine: Engine, gate: Gate, place: int = 5) -> Handle[Any, Outcome]:
    """A job that is held before one of its passes."""
    return engine.submit(SPEC.job(lambda _, index: gate.wait() if index == place else None))


def test_events_and_result(engine: Engine, rows: Rows) -> None:
    """Both ways of reading, together and again after the end."""

    async def main() -> None:
        handle = engine.submit(SPEC.job())
        assert [event async for event in handle] == rows
        assert (await handle).drawn == rows
        assert [event async for event in handle] == rows
        assert (await handle) is handle.result(0)

    run(main())


def test_the_loop_goes_on_meanwhile(engine: Engine, rows: Rows) -> None:
    """The job is held until another task has run: a blocked loop would never end."""
    gate = Gate()

    async def main() -> None:
        handle = held(engine, gate)
        ticks = [0]

        async def beat() -> None:
            while ticks[0] < 200:
                ticks[0] += 1
                await asyncio.sleep(0)
            gate.open()

        async def read() -> Rows:
            return [event async for event in handle]

        outcome, events, _ = await asyncio.gather(handle, read(), beat())
        assert outcome.drawn == events == rows
        assert ticks[0] == 200

    run(main())


def test_nothing_polls(engine: Engine, rows: Rows) -> None:
    """While no event comes, waiting tasks take no step of the loop."""
    gate = Gate()

    async def main() -> None:
        handle = held(engine, gate)
        await asyncio.to_thread(gate.reached)
        loop = asyncio.get_running_loop()
        call_soon: Callable[..., asyncio.Handle] = loop.call_soon
        events = aiter(handle)
        assert [await anext(events) for _ in range(4)] == rows[:4]
        waiting = asyncio.gather(handle, anext(events))
        for _ in range(5):
            await asyncio.sleep(0)
        steps = [0]

        def count(*args: Any, **options: Any) -> asyncio.Handle:
            steps[0] += 1
            return call_soon(*args, **options)

        with mock.patch.object(loop, "call_soon", count):
            for _ in range(20):
                await asyncio.sleep(0)
        assert steps[0] == 20, "one for each step of this test"
        gate.open()
        outcome, event = await waiting
        assert outcome.drawn == rows
        assert event == rows[4]

    run(main())


def test_submitting_never_waits_for_a_pass(engine: Engine, rows: Rows) -> None:
    """Nor do cancel, stop and say: the engine's thread is held meanwhile."""
    gate = Gate()

    async def main() -> None:
        handle = held(engine, gate)
        await asyncio.to_thread(gate.reached)
        other, third, fourth = (engine.submit(SPEC.job()) for _ in range(3))
        third.say("hello")
        third.stop()
        fourth.cancel()
        assert not any(h.done for h in (handle, other, third, fourth))
        gate.open()
        assert (await handle).drawn == (await other).drawn == rows
        assert (await third).heard == ["hello"]
        assert (await third).drawn == []
        assert (await fourth).cancelled

    run(main())


def test_many_at_once(engine: Engine, rows: Rows) -> None:
    """Each task gets its own job's result."""

    async def one(number: int) -> int:
        outcome = await engine.submit(Team(SPEC.prompt, 2, number))
        assert outcome.drawn == rows[:number]
        return len(outcome.drawn)

    async def main() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(12)))

    assert run(main()) == [*range(12)]


def test_a_failed_job(engine: Engine, rows: Rows) -> None:
    """Its events end; waiting for it raises what `result` raises."""

    def fail(_: Team, index: int) -> None:
        if index == 3:
            raise ValueError("boom")

    async def main() -> None:
        handle = engine.submit(SPEC.job(fail))
        assert [event async for event in handle] == rows[:3]
        with pytest.raises(SessionFailedError) as caught:
            await handle
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.partial.drawn == rows[:3]

    run(main())


def test_a_task_that_gives_up(engine: Engine, rows: Rows) -> None:
    """The job goes on, and others may wait for it."""
    gate = Gate()

    async def main() -> None:
        handle = held(engine, gate)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle, 0.001)

        async def read() -> Rows:
            return [event async for event in handle]

        reader = asyncio.create_task(read())
        await asyncio.to_thread(gate.reached)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert not handle.done
        gate.open()
        assert (await handle).drawn == rows

    run(main())


def test_at_the_end_of_a_with_block(engine: Engine) -> None:
    """The job is cancelled, also when the task that runs the block is."""

    async def main() -> None:
        async with engine.submit(Team([1, 2], passes=1000)) as handle:
            async for _ in handle:
                break
        assert (await handle).cancelled
        handles: list[Handle[Any, Outcome]] = []

        async def use() -> None:
            async with engine.submit(Team([1, 2], passes=1000)) as handle:
                handles.append(handle)
                await handle

        task = asyncio.create_task(use())
        while not handles:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await handles[0]).cancelled

    run(main())


def test_one_job_in_several_loops(engine: Engine, rows: Rows) -> None:
    """On several threads, next to a reader that uses no loop."""
    gate = Gate()
    handle = held(engine, gate)
    got: list[Rows] = []

    async def read() -> None:
        events = [event async for event in handle]
        assert (await handle).drawn == events
        got.append(events)

    threads = [threading.Thread(target=lambda: run(read()), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.reached()
    gate.open()
    assert within(lambda: list(handle)) == rows
    for thread in threads:
        thread.join(WAIT)
    assert got == [rows] * 3


def test_a_future_of_asyncio_for_a_job(engine: Engine, rows: Rows) -> None:
    """A job that asks a coroutine of the loop, through run_coroutine_threadsafe."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def answer(number: int) -> int:
            await asyncio.sleep(0)
            return 2 * number

        def ask(_: Team, index: int) -> Any:
            return asyncio.run_coroutine_threadsafe(answer(index), loop)

        outcome = await engine.submit(SPEC.job(ask))
        assert outcome.answers == [2 * index for index in range(12)]
        assert outcome.drawn == rows

    run(main())
