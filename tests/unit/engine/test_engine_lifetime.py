"""The engine's thread: how it sleeps and how it ends, without leaving a handle waiting."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from hogwild_agents.engine import Engine, Handle, SharedCacheModel
from hogwild_agents.errors import EngineClosedError, SessionFailedError
from tests.unit.engine.jobs import (
    SPEC,
    WAIT,
    Gate,
    Outcome,
    Rows,
    Spec,
    Team,
    first,
    load,
    patched,
    results,
    within,
)
from tests.unit.engine.reference import some_tokens

LARGE = Spec(tuple(some_tokens(500, 3)), workers=1, passes=20)


def thread_of(engine: Engine) -> threading.Thread:
    """The engine's thread, which must run."""
    thread = engine._loop._thread
    assert thread is not None
    assert thread.is_alive()
    return thread


def gone(thread: threading.Thread) -> bool:
    """Whether a thread ends by itself."""
    thread.join(WAIT)
    return not thread.is_alive()


def holding(gate: Gate, place: int = 5) -> Callable[[Team, int], Any]:
    """Holds a team before one of its passes."""
    return lambda _, index: gate.wait() if index == place else None


class TestClose:
    """Everything that runs or waits is cancelled, and the thread is gone."""

    def crowd(self, engine: Engine, gate: Gate) -> list[Handle[Any, Outcome]]:
        """A job that is held in its steps, one that waits for memory, one not yet looked at."""
        running = engine.submit(LARGE.job(holding(gate)))
        waiting = engine.submit(LARGE.job())
        gate.reached()
        return [running, waiting, engine.submit(SPEC.job())]

    def test_from_another_thread(self) -> None:
        """Each handle gets what its job had reached."""
        model, gate = load(24), Gate()
        engine = Engine(model)
        handles = self.crowd(engine, gate)
        thread = thread_of(engine)
        closer = threading.Thread(target=engine.close, daemon=True)
        closer.start()
        gate.open()
        outcomes = results(handles)
        assert gone(closer)
        assert not thread.is_alive()
        assert [outcome.cancelled for outcome in outcomes] == [True] * 3
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len(outcomes[0].drawn) >= 5
        assert outcomes[1].drawn == outcomes[2].drawn == []
        assert within(lambda: list(handles[0])) == outcomes[0].drawn
        assert model.pool.used_pages == 0
        with pytest.raises(EngineClosedError):
            engine.submit(SPEC.job())

    def test_every_closer_waits(self, model: SharedCacheModel) -> None:
        """Also the second caller: when `close` returns, the model is free."""
        gate, engine = Gate(), Engine(model)
        alive: list[bool] = []

        def close_inside(_: Team, index: int) -> None:
            if index == 3:
                engine.close()
                gate.wait()

        handle = engine.submit(SPEC.job(close_inside))
        gate.reached()
        thread = thread_of(engine)

        def close() -> None:
            engine.close()
            alive.append(thread.is_alive())

        closers = [threading.Thread(target=close, daemon=True) for _ in range(3)]
        for closer in closers:
            closer.start()
        gate.open()
        assert all(gone(closer) for closer in closers)
        assert alive == [False] * 3
        assert handle.result(WAIT).cancelled
        engine.close()

    def test_the_next_engine_waits_for_the_thread_of_the_last(
        self, model: SharedCacheModel, rows: Rows
    ) -> None:
        """Two threads would otherwise run passes on one model."""
        gate, engine = Gate(), Engine(model)
        alive: list[bool] = []

        def close_inside(_: Team, index: int) -> None:
            if index == 3:
                engine.close()
                gate.wait()

        engine.submit(SPEC.job(close_inside))
        gate.reached()
        thread = thread_of(engine)

        def begin() -> Rows:
            with Engine(model) as second:
                alive.append(thread.is_alive())
                return second.submit(SPEC.job()).result(WAIT).drawn

        drawn: list[Rows] = []
        beginner = threading.Thread(target=lambda: drawn.append(begin()), daemon=True)
        beginner.start()
        gate.open()
        assert gone(beginner)
        assert alive == [False]
        assert drawn == [rows]
        assert model.pool.used_pages == 0

    @pytest.mark.parametrize("where", ["steps", "result"])
    def test_from_a_job(self, model: SharedCacheModel, rows: Rows, where: str) -> None:
        """On the engine's own thread, which cannot wait for itself."""
        engine = Engine(model)
        job = SPEC.job(lambda _, index: engine.close() if (where, index) == ("steps", 4) else None)
        result = job.result

        def close_then(*args: Any) -> Outcome:
            engine.close()
            return result(*args)

        if where == "result":
            patched(job, result=close_then)
        other = engine.submit(Team([1, 2, 3], passes=500))
        handle = engine.submit(job)
        thread = thread_of(engine)
        drawn = handle.result(WAIT).drawn
        assert drawn == (rows if where == "result" else rows[: len(drawn)])
        assert other.result(WAIT).cancelled
        assert gone(thread)
        assert model.pool.used_pages == 0

    def test_an_engine_that_did_nothing(self, model: SharedCacheModel) -> None:
        """It never had a thread."""
        before = threading.active_count()
        engine = Engine(model)
        assert threading.active_count() == before
        engine.close()
        engine.close()

    def test_a_thread_that_cannot_start(
        self, model: SharedCacheModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The caller gets an error, and may try again."""

        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with Engine(model) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", fail)
                for _ in range(2):
                    with pytest.raises(RuntimeError, match="new thread"):
                        engine.submit(SPEC.job())
            assert engine.submit(SPEC.job()).result(WAIT).drawn == rows


class TestForgotten:
    """An engine lives as long as someone may want something from it."""

    def test_its_thread_ends(self, rows: Rows) -> None:
        """And its memory is given back."""
        model = load()
        engine = Engine(model)
        assert engine.submit(SPEC.job()).result(WAIT).drawn == rows
        assert model.pool.used_pages > 0, "its prompt is kept"
        thread, trace = thread_of(engine), weakref.ref(engine)
        del engine
        gc.collect()
        assert gone(thread)
        gc.collect()
        assert trace() is None
        assert model.pool.used_pages == 0
        with Engine(model) as second:
            assert second.submit(SPEC.job()).result(WAIT).drawn == rows

    @pytest.mark.parametrize("end", ["close", "drop"])
    def test_the_model_is_let_go(self, end: str) -> None:
        """An engine that is closed, or has no reference left, keeps no model in memory."""
        model = load()
        trace = weakref.ref(model)
        engine = Engine(model)
        engine.submit(SPEC.job()).result(WAIT)
        thread = thread_of(engine)
        if end == "close":
            engine.close()
        del engine
        gc.collect()
        assert gone(thread)
        del model
        gc.collect()
        assert trace() is None

    def test_a_handle_keeps_its_engine(self, model: SharedCacheModel, rows: Rows) -> None:
        """Who waits for a job need not hold the engine."""
        gate, engine = Gate(), Engine(model)
        handle = engine.submit(SPEC.job(holding(gate)))
        gate.reached()
        thread = thread_of(engine)
        del engine
        gc.collect()
        gate.open()
        assert handle.result(WAIT).drawn == rows
        del handle
        gc.collect()
        assert gone(thread)

    @pytest.mark.parametrize("state", ["running", "waiting for a future"])
    def test_a_running_job_keeps_its_engine(
        self, model: SharedCacheModel, rows: Rows, state: str
    ) -> None:
        """Also one whose handle has no reference left; when it ends, so does the thread."""
        gate, ended = Gate(), threading.Event()
        future: Future[int] = Future()
        outcomes: list[Outcome] = []
        job = SPEC.job(lambda _, index: future if index == 5 else None)
        if state == "running":
            job = SPEC.job(holding(gate))
        result = job.result

        def record(*args: Any) -> Outcome:
            outcomes.append(result(*args))
            ended.set()
            return outcomes[0]

        patched(job, result=record)
        engine = Engine(model)
        handle = engine.submit(job)
        if state == "running":
            gate.reached()
        else:
            assert first(handle, 5) == rows[:5]
        thread = thread_of(engine)
        del engine, handle
        gc.collect()
        gate.open()
        future.set_result(1)
        assert ended.wait(WAIT)
        assert outcomes[0].drawn == rows
        assert not outcomes[0].cancelled
        gc.collect()
        assert gone(thread)

    def test_an_ended_job_holds_nothing(self, model: SharedCacheModel) -> None:
        """Its handle keeps the result, not its blocks, steps or what was moved to host memory."""
        with Engine(model) as engine:
            handle = engine.submit(SPEC.job())
            handle.result(WAIT)
            task = handle._task
            assert (task.lease, task.steps, task.entry, task.future, task.offloaded) == (None,) * 5


class TestSleep:
    """Between passes the thread does nothing, and it misses no call."""

    def spied(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bool], Gate]:
        """What every `advance` says; and a gate that is reached when there is nothing to do."""
        scheduler, said, idle = engine._loop.scheduler, [], Gate()
        idle.open(10_000)
        advance = scheduler.advance

        def spy() -> bool:
            said.append(advance())
            if not said[-1]:
                idle.wait()
            return said[-1]

        monkeypatch.setattr(scheduler, "advance", spy)
        return said, idle

    def test_it_sleeps_while_a_job_waits(
        self, model: SharedCacheModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For a future, however long that takes; it does not look again and again."""
        future: Future[int] = Future()
        with Engine(model) as engine:
            said, idle = self.spied(engine, monkeypatch)
            handle = engine.submit(SPEC.job(lambda _, index: future if index == 5 else None))
            idle.reached()
            with pytest.raises(TimeoutError):
                handle.result(0.05)
            assert len(said) <= 9
            future.set_result(1)
            assert handle.result(WAIT).drawn == rows
            with pytest.raises(TimeoutError):
                engine.submit(SPEC.job(lambda *_: Future())).result(0.05)
            assert len(said) <= 30

    @pytest.mark.parametrize("how", ["answer", "error", "cancel"])
    def test_an_answer_at_the_worst_moment(
        self, model: SharedCacheModel, rows: Rows, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """After the thread has looked for it, and before it falls asleep."""
        future: Future[int] = Future()
        with Engine(model) as engine:
            scheduler = engine._loop.scheduler
            advance = scheduler.advance

            def answer_late() -> bool:
                busy = advance()
                if not busy and not future.done():
                    if how == "answer":
                        future.set_result(1)
                    elif how == "error":
                        future.set_exception(OSError())
                    else:
                        future.cancel()
                return busy

            monkeypatch.setattr(scheduler, "advance", answer_late)
            handle = engine.submit(SPEC.job(lambda _, index: future if index == 5 else None))
            if how == "answer":
                assert handle.result(WAIT).drawn == rows
            else:
                with pytest.raises(SessionFailedError):
                    handle.result(WAIT)
