"""A device without memory: in a pass, when a job is preempted, when it is restored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hogwild_agents.engine import CacheBlock, Engine
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.scheduling import executor, scheduler
from hogwild_agents.engine.scheduling.executor import RETRIES, is_memory_error
from hogwild_agents.errors import SessionFailedError
from tests.unit.engine.jobs import (
    WAIT,
    Direct,
    Rows,
    Spec,
    Spy,
    Team,
    alone,
    load,
    results,
    some_specs,
)
from tests.unit.engine.reference import some_tokens

SPECS = some_specs(6, seed=4, passes=(12, 20))
ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    "python": MemoryError,
}
Views = Sequence[Sequence[CacheBlock]]


@pytest.fixture(scope="module")
def expected() -> list[Rows]:
    """What every team draws alone."""
    return alone(load(), SPECS)


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been slept between attempts."""
    naps: list[float] = []
    monkeypatch.setattr(f"{executor.__name__}.time", SimpleNamespace(sleep=naps.append))
    return naps


@pytest.mark.parametrize(
    ("error", "max_rows"), [(ERRORS["cuda"], 4), (ERRORS["cpu"], 7), (ERRORS["python"], 5)]
)
def test_a_device_that_holds_few_rows(
    expected: list[Rows],
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], Exception],
    max_rows: int,
) -> None:
    """Fewer sessions run per pass, in turn, and all draw what they draw alone."""
    model = load()

    def before(views: Views) -> None:
        if len(views) > max_rows:
            raise error()

    spy = Spy(model, monkeypatch, before)
    with Engine(model) as engine:
        got = results([engine.submit(spec.job()) for spec in SPECS])
    assert [outcome.drawn for outcome in got] == expected
    assert any(len(rows) > max_rows for rows in spy.passes)
    assert model.pool.used_pages == 0


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ERRORS["cuda"], 1),
        (ERRORS["cpu"], 2),
        (ERRORS["python"], 4),
        (ERRORS["cuda"], RETRIES),
    ],
)
def test_a_shortage_that_passes(
    expected: list[Rows],
    monkeypatch: pytest.MonkeyPatch,
    naps: list[float],
    error: Callable[[], Exception],
    calls: int,
) -> None:
    """The first attempts fail; no result changes."""
    model = load()
    left = [calls]

    def before(_: Views) -> None:
        if left[0]:
            left[0] -= 1
            raise error()

    Spy(model, monkeypatch, before)
    with Engine(model) as engine:
        got = results([engine.submit(spec.job()) for spec in SPECS])
    assert [outcome.drawn for outcome in got] == expected
    assert len(naps) == calls - 1
    assert naps == sorted(naps), "it waits longer each time"


def test_the_batch_shrinks_and_grows_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half, a quarter; and double again after some passes without an error."""
    monkeypatch.setattr(executor, "PASSES_UNTIL_GROWTH", 3)
    model = load()
    short = [0]

    def before(_: Views) -> None:
        if short[0]:
            short[0] -= 1
            raise ERRORS["cuda"]()

    spy = Spy(model, monkeypatch, before)
    direct = Direct.on(model)
    specs = [Spec((1 + n, 2, 3), 1, 30) for n in range(8)]
    jobs = [spec.job() for spec in specs]
    for job in jobs:
        direct.add(job)
    for _ in range(3):
        direct.scheduler.advance()
    spy.passes.clear()
    short[0] = 2
    for _ in range(16):
        direct.scheduler.advance()
    sizes = [len(rows) for rows in spy.passes]
    assert sizes == [8, 4, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    taken = Counter(len(job.drawn) for job in jobs)
    assert max(taken) - min(taken) <= 1, "no job was left behind"
    direct.drain()
    assert direct.drawn() == alone(load(), specs)


def test_a_shortage_that_stays(monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> None:
    """One job after the other ends with the device's error and what it had reached."""
    model = load()
    short: list[bool] = []

    def before(_: Views) -> None:
        if short:
            raise ERRORS["cuda"]()

    Spy(model, monkeypatch, before)
    with Engine(model) as engine:
        handles = [
            engine.submit(spec.job(lambda _, index: short.append(True) if index == 9 else None))
            for spec in SPECS
        ]
        for handle in handles:
            with pytest.raises(SessionFailedError) as caught:
                handle.result(WAIT)
            assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
            assert len(caught.value.partial.drawn) >= 5
        short.clear()
        monkeypatch.undo()
        assert engine.submit(SPECS[0].job()).result(WAIT).drawn == alone(load(), SPECS[:1])[0]
    assert len(naps) == (RETRIES - 1) * len(SPECS)
    assert model.pool.used_pages == 0


def test_another_fault_while_memory_is_short(
    expected: list[Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is charged to the job that causes it."""
    model = load()

    def before(views: Views) -> None:
        if len(views) > 4:
            raise ERRORS["cuda"]()
        if len(views) == 1 and len(views[0]) == 2 and len(views[0][-1]) > 4:
            raise ArithmeticError("the lone worker's")

    Spy(model, monkeypatch, before)
    with Engine(model) as engine:
        handles = [engine.submit(spec.job()) for spec in SPECS]
        for spec, handle, rows in zip(SPECS, handles, expected, strict=True):
            if spec.workers > 1:
                assert handle.result(WAIT).drawn == rows
            else:
                with pytest.raises(SessionFailedError, match="lone worker") as caught:
                    handle.result(WAIT)
                partial = caught.value.partial.drawn
                assert partial == rows[: len(partial)] != []


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        *((error(), True) for error in ERRORS.values()),
        (RuntimeError("shapes do not match"), False),
        (ValueError("no memory of this"), False),
        (NotImplementedError("memory format"), False),
    ],
)
def test_what_is_a_shortage_of_memory(error: Exception, memory: bool) -> None:
    """Errors that say so by their type or their text."""
    assert is_memory_error(error) == memory


class TestPreemption:
    """Faults while a job's memory is moved."""

    SPECS = (Spec(tuple(some_tokens(2 * PAGE, 1)), 1, 90), Spec(tuple(some_tokens(60, 2)), 2, 70))
    ERROR = torch.OutOfMemoryError("out of memory on the device")

    def test_a_device_without_memory_to_preempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The job ends; the one that needed its memory continues."""
        direct = self.crowded()

        def fail(*_: object) -> None:
            raise self.ERROR

        monkeypatch.setattr(scheduler, "OffloadedBlocks", fail)
        direct.drain()
        assert direct.outcomes[1][1] is self.ERROR
        assert direct.outcomes[0][1] is None

    def test_a_device_without_memory_to_restore(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The job stays preempted until another one ends, and then continues."""
        direct = self.crowded()
        copy, attempts = OffloadedBlocks._copy_to, []

        def fail(offloaded: OffloadedBlocks, places: Sequence[int]) -> None:
            attempts.append(places)
            if len(attempts) < 4:
                raise self.ERROR
            copy(offloaded, places)

        monkeypatch.setattr(OffloadedBlocks, "_copy_to", fail)
        rows = alone(load(), self.SPECS)
        self.room(direct)
        direct.drain()
        assert len(attempts) >= 4
        assert direct.drawn() == rows

    def test_a_job_that_freed_blocks_by_itself(self) -> None:
        """Freed blocks are left out when it is preempted."""

        def free_a_block(team: Team) -> None:
            assert team.lease is not None
            team.lease.new_block().free()

        direct = self.crowded(free_a_block)
        direct.drain()
        assert direct.tasks[1].usage.preemptions > 0
        assert direct.drawn() == alone(load(), self.SPECS)

    def crowded(self, act: Callable[[Team], Any] = lambda _: None) -> Direct:
        """Two jobs that do not fit into a cache together, as much of it is taken."""
        model = load(24)
        direct = Direct.on(model, prefix_pages=0)
        self.hog = model.new_block()
        model.forward([[self.hog]], [some_tokens(13 * PAGE)])
        for spec in self.SPECS:
            direct.add(spec.job(lambda team, index: act(team) if index == 3 else None))
        while direct.tasks[1].lease is None or not direct.tasks[1].usage.prefilled:
            direct.scheduler.advance()
        return direct

    def room(self, direct: Direct) -> None:
        """Gives the cache to the jobs once the second one is preempted."""
        while direct.tasks[1].offloaded is None:
            direct.scheduler.advance()
        self.hog.free()
