"""Submitting a job, and its handle: events, result, cancel, stop, say."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hogwild_agents.engine import Engine
from hogwild_agents.errors import SessionEndedError, SessionFailedError
from tests.unit.engine.jobs import (
    SPEC,
    WAIT,
    Gate,
    Outcome,
    Rows,
    Spec,
    Spy,
    Team,
    first,
    load,
    patched,
    results,
    within,
)
from tests.unit.engine.reference import some_tokens


class TestEvents:
    """All of them, in order, for every reader."""

    def test_readers_that_come_early_and_late(self, engine: Engine, rows: Rows) -> None:
        """Before the first event, in the middle, after the end."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 6 else None))
        gate.reached()
        seen: list[list[Any]] = [[], [], []]
        threads = [
            threading.Thread(target=lambda mine=mine: mine.extend(handle), daemon=True)
            for mine in seen
        ]
        for thread in threads:
            thread.start()
        assert first(handle, 5) == rows[:5]
        gate.open()
        for thread in threads:
            thread.join(WAIT)
        assert seen == [rows] * 3
        assert list(handle) == rows
        assert handle.result(WAIT).drawn == rows
        assert handle.done

    def test_they_come_while_the_job_runs(self, engine: Engine, rows: Rows) -> None:
        """Each after its pass, not all at the end."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index else None))
        events = iter(handle)
        for row in rows:
            gate.open()
            assert within(lambda: next(events)) == row
        with pytest.raises(StopIteration):
            within(lambda: next(events))

    def test_what_was_told_before_a_fault(self, engine: Engine, rows: Rows) -> None:
        """The events end with the job; the error is the result's."""

        def fail(team: Team, index: int) -> None:
            if index == 4:
                team.events.append("last words")
                raise ValueError("boom")

        handle = engine.submit(SPEC.job(fail))
        assert within(lambda: list(handle)) == [*rows[:4], "last words"]
        with pytest.raises(SessionFailedError, match="ValueError: boom"):
            handle.result(WAIT)

    def test_what_the_result_tells(self, engine: Engine, rows: Rows) -> None:
        """Events that a job makes while it sums up are not lost."""
        job = SPEC.job()
        result = job.result

        def with_event(*args: Any) -> Outcome:
            job.events.append("the end")
            return result(*args)

        patched(job, result=with_event)
        assert within(lambda: list(engine.submit(job))) == [*rows, "the end"]


class TestResults:
    """The result, with and without a limit on the time to wait."""

    def test_a_wait_that_is_too_short(self, engine: Engine, rows: Rows) -> None:
        """The job goes on; it can be asked again."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 3 else None))
        gate.reached()
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError, match=str(timeout)):
                handle.result(timeout)
        assert not handle.done
        gate.open()
        assert handle.result(WAIT).drawn == rows
        assert handle.result(0) is handle.result()

    def test_the_figures_of_a_job(self, engine: Engine) -> None:
        """Passes, tokens and times are as they were."""
        usage = engine.submit(SPEC.job()).result(WAIT).usage
        assert (usage.prompt_tokens, usage.reused_tokens, usage.passes) == (40, 0, 13)
        assert 0 <= usage.waited <= usage.prefilled
        again = engine.submit(SPEC.job()).result(WAIT).usage
        assert (again.prompt_tokens, again.reused_tokens, again.passes) == (40, 39, 13)

    def test_a_failed_job_may_be_asked_twice(self, engine: Engine) -> None:
        """It fails the same way each time."""

        def fail(*_: object) -> None:
            raise ValueError("boom")

        handle = engine.submit(SPEC.job(fail))
        for _ in range(2):
            with pytest.raises(SessionFailedError) as caught:
                handle.result(WAIT)
            assert isinstance(caught.value.__cause__, ValueError)
            assert caught.value.partial.drawn == []


class TestCancel:
    """Within a pass, wherever the job is; what it had reached is its result."""

    def test_while_it_runs(
        self, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pass under way is its last; its memory is free."""
        gate = Gate()
        calls = [0]

        def hold(_: object) -> None:
            calls[0] += 1
            if calls[0] == 6:
                gate.wait()

        Spy(engine.model, monkeypatch, hold)
        handle = engine.submit(SPEC.job())
        gate.reached()
        within(handle.cancel)
        assert not handle.done
        gate.open()
        outcome = handle.result(WAIT)
        assert outcome.cancelled
        assert outcome.error is None
        assert outcome.drawn == rows[:5] == list(handle)
        assert calls[0] == 6
        assert engine.model.pool.used_pages == engine._loop.scheduler.prefix_cache.pages

    def test_before_it_is_admitted(self, rows: Rows) -> None:
        """One that waits for memory, and one that the engine has not looked at yet."""
        with Engine(load(24), prefix_bytes=0) as engine:
            gate = Gate()
            large = Spec(tuple(some_tokens(500)), 1, 20)
            running = engine.submit(large.job(lambda _, index: gate.wait() if index == 3 else None))
            waiting = engine.submit(large.job())
            gate.reached()
            unseen = engine.submit(SPEC.job())
            last = engine.submit(SPEC.job())
            for handle in (waiting, unseen):
                handle.cancel()
                handle.cancel()
            gate.open()
            for handle in (waiting, unseen):
                outcome = handle.result(WAIT)
                assert (outcome.cancelled, outcome.drawn, outcome.usage.passes) == (True, [], 0)
                assert list(handle) == []
            assert len(running.result(WAIT).drawn) == 20
            assert last.result(WAIT).drawn == rows

    def test_while_its_prompt_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No further chunk is read."""
        model = load()
        gate = Gate()
        spy = Spy(model, monkeypatch, lambda _: gate.wait() if len(spy.passes) == 3 else None)
        with Engine(model, prefill_chunk=8) as engine:
            handle = engine.submit(SPEC.job())
            gate.reached()
            handle.cancel()
            gate.open()
            outcome = handle.result(WAIT)
        assert outcome.cancelled
        assert spy.passes == [[8]] * 3
        assert model.pool.used_pages == 0

    def test_while_it_waits_for_a_future(self, engine: Engine, rows: Rows) -> None:
        """Its steps are closed; an answer that still comes is ignored."""
        future: Future[int] = Future()
        handle = engine.submit(SPEC.job(lambda _, index: future if index == 4 else None))
        assert first(handle, 4) == rows[:4]
        handle.cancel()
        assert handle.result(WAIT).drawn == rows[:4]
        future.set_result(1)
        assert engine.submit(SPEC.job()).result(WAIT).drawn == rows

    def test_after_the_end(self, engine: Engine, rows: Rows) -> None:
        """It changes nothing."""
        handle = engine.submit(SPEC.job())
        assert handle.result(WAIT).drawn == rows
        handle.cancel()
        assert engine.submit(SPEC.job()).result(WAIT).drawn == rows
        assert not handle.result(WAIT).cancelled

    def test_from_any_thread_and_by_others(self, engine: Engine, rows: Rows) -> None:
        """Also from within another job, which runs on the engine's own thread."""
        gate = Gate()
        victim = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 2 else None))
        gate.reached()
        other = engine.submit(SPEC.job(lambda _, index: victim.cancel() if index == 3 else None))
        gate.open()
        assert victim.result(WAIT).cancelled
        assert other.result(WAIT).drawn == rows
        third = engine.submit(Team(some_tokens(9), passes=1000))
        within(third.cancel)
        assert third.result(WAIT).cancelled

    def test_at_the_end_of_a_with_block(self, engine: Engine) -> None:
        """Also when the block is left by an error."""
        with engine.submit(Team([1, 2], passes=1000)) as handle:
            assert first(handle, 1)
        assert handle.result(WAIT).cancelled
        with (
            pytest.raises(KeyError),
            engine.submit(Team([1, 2], passes=1000)) as handle,
        ):
            raise KeyError
        assert handle.result(WAIT).cancelled
        with engine.submit(SPEC.job()) as handle:
            handle.result(WAIT)
        assert not handle.result(WAIT).cancelled


class TestMessages:
    """What reaches a job from outside."""

    def test_stop(self, engine: Engine, rows: Rows) -> None:
        """It ends in its own way, which is no cancel."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 5 else None))
        gate.reached()
        handle.stop()
        gate.open()
        outcome = handle.result(WAIT)
        assert (outcome.cancelled, outcome.error) == (False, None)
        assert outcome.drawn == rows[:6]
        handle.stop()

    def test_say(self, engine: Engine, rows: Rows) -> None:
        """In order; also before the job is admitted, and from several threads."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 5 else None))
        handle.say("one")
        gate.reached()
        handle.say("two")
        within(lambda: handle.say("three"))
        gate.open()
        outcome = handle.result(WAIT)
        assert outcome.heard == ["one", "two", "three"]
        assert outcome.drawn == rows

    def test_what_a_job_cannot_take(self, engine: Engine, rows: Rows) -> None:
        """Is the speaker's fault, not the job's."""
        gate = Gate()
        handle = engine.submit(SPEC.job(lambda _, index: gate.wait() if index == 5 else None))
        gate.reached()
        with pytest.raises(TypeError, match="words"):
            handle.say(5)
        gate.open()
        assert handle.result(WAIT).drawn == rows

    def test_too_late(self, engine: Engine) -> None:
        """Nobody would hear it, and one should know."""
        handle = engine.submit(SPEC.job())
        handle.result(WAIT)
        with pytest.raises(SessionEndedError, match="ended"):
            handle.say("hello?")
        assert handle.result(WAIT).heard == []


def test_many_threads(engine: Engine, rows: Rows) -> None:
    """They submit, read, cancel and wait, all at once."""

    def use(number: int) -> None:
        for entry in range(4):
            handle = engine.submit(SPEC.job())
            if (number + entry) % 3 == 0:
                got = list(handle)
                assert got == rows
            elif (number + entry) % 3 == 1:
                handle.cancel()
                outcome = handle.result(WAIT)
                assert outcome.drawn == rows[: len(outcome.drawn)]
                assert outcome.cancelled or outcome.drawn == rows
            else:
                assert results([handle])[0].drawn == rows

    futures = [
        threading.Thread(target=lambda n=n: done.append(within(lambda: use(n)))) for n in range(6)
    ]
    done: list[None] = []
    for future in futures:
        future.start()
    for future in futures:
        future.join(2 * WAIT)
    assert len(done) == 6
