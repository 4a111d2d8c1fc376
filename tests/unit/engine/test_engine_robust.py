"""Frees that fail, engines without a reference, jobs that wait for themselves, a full cache."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from hogwild_agents.engine import CacheBlock, Engine, SharedCacheModel
from hogwild_agents.engine.cache import prefix_cache
from hogwild_agents.engine.cache.prefix_cache import PrefixCache
from hogwild_agents.engine.scheduling.executor import is_memory_error
from hogwild_agents.errors import HogwildError, InvalidJobError, NotANumberError, SessionFailedError
from tests.unit.engine.cache.pools import make_pool, write
from tests.unit.engine.jobs import SPEC, WAIT, Gate, Rows, Spec, Team, load
from tests.unit.engine.reference import some_tokens


def test_memory_that_cannot_be_given_back(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that fails while a session ends fails that session; nothing waits forever."""

    def broken() -> None:
        raise RuntimeError("device-side assert")

    with Engine(model, prefix_bytes=0) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(model.pool, "trim", broken)
            for handle in [engine.submit(SPEC.job()) for _ in range(2)]:
                with pytest.raises(SessionFailedError, match="device-side assert"):
                    handle.result(WAIT)
        gc.collect()
        assert model.pool.used_pages == 0


def test_a_crash_while_sessions_end(
    model: SharedCacheModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the thread can end nothing properly, no handle is left waiting."""
    engine = Engine(model)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("all is lost")

    monkeypatch.setattr(engine._loop.scheduler, "advance", broken)
    monkeypatch.setattr(engine._loop.scheduler, "_end", broken)
    handle = engine.submit(SPEC.job())
    with pytest.raises(SessionFailedError, match="all is lost"):
        handle.result(WAIT)


def test_an_engine_without_references_needs_no_garbage_collector(
    model: SharedCacheModel, rows: Rows
) -> None:
    """Engine after engine in a function, as in a notebook."""
    gc.disable()
    try:
        for _ in range(3):
            assert Engine(model).submit(SPEC.job()).result(WAIT).drawn == rows
    finally:
        gc.enable()


def test_a_session_that_waits_for_its_own_engine(model: SharedCacheModel) -> None:
    """It would wait forever, so it gets an error."""
    with Engine(model) as engine:
        inner = engine.submit(SPEC.job())
        outer = engine.submit(SPEC.job(lambda *_: inner.result(WAIT)))
        with pytest.raises(SessionFailedError, match="forever") as caught:
            outer.result(WAIT)
        assert isinstance(caught.value.__cause__, InvalidJobError)


@pytest.mark.parametrize("error", [SessionFailedError("why", [1, 2]), NotANumberError("so", (3,))])
def test_errors_cross_processes(error: HogwildError) -> None:
    """With all that they carry."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("given", ["a/path", None, 3])
def test_an_engine_of_something_else(given: Any) -> None:
    """The commonest mistake of all."""
    with pytest.raises(InvalidJobError, match="from_pretrained"):
        Engine(given)


@pytest.mark.parametrize("given", ["a question", None, object()])
def test_submitting_something_else(model: SharedCacheModel, given: Any) -> None:
    """And the second commonest."""
    with Engine(model) as engine, pytest.raises(InvalidJobError, match="session"):
        engine.submit(given)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("shape mismatch", False),
    ],
)
def test_what_counts_as_want_of_memory(message: str, expected: bool) -> None:
    """A broken device is not a lack of memory: trying again would not help."""
    assert is_memory_error(RuntimeError(message)) == expected


def test_kept_prompts_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are looked at whenever one arrives."""
    monkeypatch.setattr(prefix_cache, "MAX_ENTRIES", 7)
    pool = make_pool(40)
    store = PrefixCache(pool, pool.limit_pages)
    for number in range(12):
        block = CacheBlock(pool)
        write(block, [number] * 40)
        store.put(np.full(40, number), block)
        block.free()
    assert len(store) == 7
    assert store.match(np.full(50, number)) == 40
    assert store.match(np.full(50, 0)) == 0


def test_reprs(model: SharedCacheModel) -> None:
    """What a REPL shows."""
    gate = Gate()
    with Engine(model) as engine:
        handle = engine.submit(SPEC.job(lambda _, at: None if at else gate.wait()))
        gate.reached()
        assert "running" in repr(handle)
        gate.open()
        handle.result(WAIT)
        assert "ended" in repr(handle)
    assert repr(engine).endswith("closed>")


def test_sessions_that_wait_for_sessions_when_the_cache_is_full() -> None:
    """Sleeping sessions make room for the ones that they wait for."""

    def wait_at_3(future: Future[Any], _: Team, index: int) -> Future[Any] | None:
        return future if index == 3 else None

    small = load(20)
    spec = Spec(tuple(some_tokens(200, 2)), workers=1, passes=12)
    with Engine(small, prefix_bytes=0) as engine:
        expected = engine.submit(spec.job()).result(WAIT).drawn
        chain: list[Future[Any]] = [Future() for _ in range(6)]
        handles = [engine.submit(spec.job(partial(wait_at_3, future))) for future in chain]
        last = engine.submit(spec.job())
        assert last.result(WAIT).drawn == expected
        for future in chain:
            future.set_result(None)
        outcomes = [handle.result(WAIT) for handle in handles]
    assert [outcome.drawn for outcome in outcomes] == [expected] * 6
    assert sum(outcome.usage.preemptions for outcome in outcomes) > 0


def test_a_nan_in_the_cache_goes_with_its_session(model: SharedCacheModel, rows: Rows) -> None:
    """The next session with its pages finds them clean."""

    def poison(team: Team, at: int) -> None:
        if at == 5:
            assert team.lease is not None
            for block in team.lease.blocks:
                model.pool.values[1][:, model.pool.tensor(block.slots(0, len(block)))] = torch.nan

    with Engine(model) as engine:
        for _ in range(3):
            with pytest.raises(SessionFailedError, match="NaN"):
                engine.submit(SPEC.job(poison)).result(WAIT)
            assert engine.submit(SPEC.job()).result(WAIT).drawn == rows
    assert all(not values.isnan().any() for values in model.pool.values)
