"""How the engine's thread ends when it breaks down, or when Python exits: nothing hangs."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hogwild_agents.engine import Engine
from hogwild_agents.errors import EngineClosedError, SessionEndedError, SessionFailedError
from tests.unit.engine.jobs import SPEC, WAIT, Gate, Outcome, Team, alone, load
from tests.unit.engine.reference import some_tokens


@pytest.mark.parametrize("error", [RuntimeError("wires crossed"), SystemExit(2)], ids=repr)
def test_a_crash_fails_every_handle_at_once(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Jobs that run, that wait for memory or a future, and that were not looked at yet."""
    (rows,) = alone(load(), [SPEC])
    model, gate = load(34), Gate()
    engine = Engine(model)
    scheduler = engine._loop.scheduler
    advance = scheduler.advance
    calls = [0]

    def fail() -> bool:
        calls[0] += 1
        if calls[0] < 9:
            return advance()
        gate.wait()
        raise error

    monkeypatch.setattr(scheduler, "advance", fail)
    asking = engine.submit(SPEC.job(lambda _, index: Future() if index == 3 else None))
    running = engine.submit(Team(some_tokens(500), workers=1, passes=300))
    waiting = engine.submit(Team(some_tokens(500, 3), workers=1, passes=20))
    gate.reached()
    thread = engine._loop._thread
    assert thread is not None
    unseen = engine.submit(SPEC.job())
    handles = [asking, running, waiting, unseen]
    seen: list[list[Any]] = [[] for _ in handles]
    readers = [
        threading.Thread(target=lambda h=h, mine=mine: mine.extend(h), daemon=True)
        for h, mine in zip(handles, seen, strict=True)
    ]
    for reader in readers:
        reader.start()
    gate.open()
    for handle in handles:
        with pytest.raises(SessionFailedError) as caught:
            handle.result(WAIT)
        assert caught.value.__cause__ is error
        assert isinstance(caught.value.partial, Outcome)
        assert caught.value.partial.error is error
    for ending in (*readers, thread):
        ending.join(WAIT)
        assert not ending.is_alive()
    assert seen[0] == rows[:3]
    assert len(seen[1]) > 0
    assert seen[2:] == [[], []]
    assert model.pool.used_pages == 0
    for _ in range(2):
        with pytest.raises(EngineClosedError, match=type(error).__name__) as refused:
            engine.submit(SPEC.job())
        assert str(error) in str(refused.value)
        assert refused.value.__cause__ is error
    engine.close()
    for handle in handles:
        handle.cancel()
        with pytest.raises(SessionEndedError):
            handle.say("hello?")
    with Engine(model) as second:
        assert second.submit(SPEC.job()).result(WAIT).drawn == rows


LEAVING = """
import sys
import threading
from concurrent.futures import Future
from hogwild_agents.engine import Engine
from tests.unit.engine.jobs import Team, first, load, some_tokens

engine, idle = Engine(load(34)), Engine(load())
running = engine.submit(Team([1, 2, 3], workers=1, passes=300))
asking = engine.submit(Team([1, 2], before=lambda team, index: Future()))
for seed in range(2):
    waiting = engine.submit(Team(some_tokens(600, seed), passes=50))
asleep = idle.submit(Team([1, 2], before=lambda team, index: Future()))
threading.Thread(target=asking.result, daemon=True).start()
threading.Thread(target=lambda: list(waiting), daemon=True).start()
first(running, 1)
print([handle.done for handle in (running, asking, waiting, asleep)])
sys.exit(CODE)
"""


@pytest.mark.parametrize("code", [0])
def test_python_may_leave_at_any_time(code: int) -> None:
    """With jobs that run, wait and ask: it ends at once, with its own code and no complaint."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING.replace("CODE", str(code))],
        capture_output=True,
        text=True,
        timeout=2 * WAIT,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "Self-check skipped" not in line]
    assert complaints == []
    assert done.stdout == f"{[False] * 4}\n"
    assert done.returncode == code


def test_an_errors_notes_are_told() -> None:
    """They name the code that failed."""

    def fail(_: Any, __: Any) -> None:
        error = ZeroDivisionError("division by zero")
        error.add_note("raised by the interrupt remind")
        raise error

    with Engine(load()) as engine:
        handle = engine.submit(SPEC.job(fail))
        with pytest.raises(SessionFailedError, match="by zero; raised by the interrupt remind"):
            handle.result(WAIT)


def test_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that does not end is not waited for; if it ends later, nothing changes."""
    model, gate = load(), Gate()
    with Engine(model) as engine:
        scheduler = engine._loop.scheduler
        advance = scheduler.advance

        def wait_and_advance() -> bool:
            gate.wait()
            return advance()

        monkeypatch.setattr(scheduler, "advance", wait_and_advance)
        handle = engine.submit(SPEC.job())
        gate.reached()
        handle.abandon(TimeoutError("too late"))
        assert handle.done
        assert list(handle) == []
        gate.open(10_000)
        for _ in range(2):
            with pytest.raises(TimeoutError, match="too late"):
                handle.result(WAIT)
        after = engine.submit(SPEC.job())
        assert after.result(WAIT).drawn
        handle.abandon(ValueError("too late again"))
        after.abandon(ValueError("it has ended"))
        assert after.result(WAIT).drawn
    with pytest.raises(TimeoutError):
        handle.result(WAIT)
