"""A fault ends the job that causes it, with what it had reached, and no other job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from hogwild_agents.engine import (
    BatchEntry,
    CacheBlock,
    Engine,
    Lease,
    SamplerState,
    SharedCacheModel,
    Write,
)
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidBlockError,
    InvalidJobError,
    InvalidSamplingError,
    InvalidTokensError,
    InvalidViewError,
    NotANumberError,
    SessionFailedError,
)
from tests.unit.engine.jobs import (
    GREEDY,
    WAIT,
    Direct,
    Outcome,
    Rows,
    Spec,
    Team,
    alone,
    first,
    load,
    patched,
    results,
    some_specs,
)
from tests.unit.engine.reference import some_tokens

NEIGHBOURS = some_specs(2, seed=4, passes=(6, 13))
VICTIM = Spec(tuple(some_tokens(40, 9)), workers=2, passes=12, layout="combined")
Before = Callable[[Team, int], Any]


@pytest.fixture(scope="module")
def model() -> SharedCacheModel:
    """The model of all these tests; whatever a job does to it, it must stay usable."""
    return load()


@pytest.fixture(scope="module")
def expected(model: SharedCacheModel) -> list[Rows]:
    """What the neighbours draw, and the victim as long as nothing happens to it."""
    return alone(model, [*NEIGHBOURS, VICTIM])


@pytest.fixture
def engine(model: SharedCacheModel, expected: list[Rows]) -> Iterator[Engine]:
    """An engine, whose neighbours end well and whose memory is all given back."""
    assert expected
    with Engine(model) as engine:
        yield engine
        again = engine.submit(NEIGHBOURS[0].job()).result(WAIT)
        assert again.drawn == expected[0], "the engine is as good as new"
    assert model.pool.used_pages == 0


@contextmanager
def neighbours(engine: Engine, expected: list[Rows]) -> Iterator[None]:
    """Two teams around what is done meanwhile; they must not notice."""
    handles = [engine.submit(spec.job()) for spec in NEIGHBOURS]
    yield
    assert [outcome.drawn for outcome in results(handles)] == expected[:2]


def fails(engine: Engine, expected: list[Rows], job: Any) -> SessionFailedError:
    """The error of a job that fails among neighbours."""
    with neighbours(engine, expected):
        handle = engine.submit(job)
        with pytest.raises(SessionFailedError) as caught:
            handle.result(WAIT)
        assert handle.done
    return caught.value


def at(place: int, act: Callable[[Team], Any]) -> Before:
    """Does something before one pass."""
    return lambda team, index: act(team) if index == place else None


def raiser(error: BaseException) -> Callable[[Team], Any]:
    """Raises an error in the job."""

    def act(_: Team) -> Any:
        raise error

    return act


@pytest.mark.parametrize("place", [0, 7, 11])
@pytest.mark.parametrize(
    "error",
    [ValueError("boom"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)],
    ids=lambda error: type(error).__name__,
)
def test_a_job_that_raises(
    engine: Engine, expected: list[Rows], error: BaseException, place: int
) -> None:
    """Anything, at any point; what it had drawn is in the error."""
    caught = fails(engine, expected, VICTIM.job(at(place, raiser(error))))
    cause = caught.__cause__
    assert cause is error or (isinstance(cause, RuntimeError) and cause.__cause__ is error)
    assert isinstance(caught.partial, Outcome)
    assert caught.partial.drawn == expected[2][:place]
    assert caught.partial.error is cause
    assert not caught.partial.cancelled
    assert type(cause).__name__ in str(caught)


def lease_of(team: Team) -> Lease:
    """The memory of a team that runs."""
    assert team.lease is not None
    return team.lease


def block_of(team: Team) -> CacheBlock:
    """A block of a team that may be written to."""
    return lease_of(team).new_block()


def freed(team: Team) -> CacheBlock:
    """A block that is freed."""
    block = block_of(team)
    block.free()
    return block


def foreign(_: Team) -> CacheBlock:
    """A block of another model, in a page that this one's pool has never had."""
    other = load()
    hog = other.new_block()
    other.forward([[hog]], [some_tokens(60 * PAGE)])
    return hog.fork()


def twice(team: Team) -> BatchEntry:
    """Two writes to one block."""
    block = block_of(team)
    return BatchEntry([Write([block], [1]), Write([block], [2])])


entry: Callable[..., BatchEntry] = BatchEntry
write: Callable[..., Write] = Write
"""Without types, for what follows is wrong on purpose."""

NONSENSE: dict[str, tuple[Callable[[Team], Any], type[BaseException]]] = {
    "a number": (lambda _: 5, InvalidJobError),
    "a text": (lambda _: "text", InvalidJobError),
    "a list": (lambda team: [write([block_of(team)], [1])], InvalidJobError),
    "a future of asyncio": (
        lambda _: asyncio.Future(loop=asyncio.new_event_loop()),
        InvalidJobError,
    ),
    "no writes": (lambda _: entry([]), InvalidJobError),
    "no tokens": (lambda team: entry([write([block_of(team)], [])]), InvalidJobError),
    "not all have tokens": (
        lambda team: entry([write([block_of(team)], [1]), write([block_of(team)], [])]),
        InvalidJobError,
    ),
    "no writes but texts": (lambda _: entry(["abc"]), AttributeError),
    "no view": (lambda _: entry([write([], [1])]), InvalidViewError),
    "a view that is not one": (lambda _: entry([write(5, [1])]), InvalidViewError),
    "a view of numbers": (lambda _: entry([write([3], [1])]), InvalidViewError),
    "a block first of all": (
        lambda team: entry([write([3, block_of(team)], [1])]),
        InvalidViewError,
    ),
    "a set of tokens": (lambda team: entry([write([block_of(team)], {1, 2})]), InvalidTokensError),
    "a number as tokens": (lambda team: entry([write([block_of(team)], 7)]), InvalidTokensError),
    "fractions": (lambda team: entry([write([block_of(team)], [1.5])]), InvalidTokensError),
    "unknown tokens": (
        lambda team: entry([write([block_of(team)], [128])]),
        InvalidTokensError,
    ),
    "a freed block": (lambda team: entry([write([freed(team)], [1])]), InvalidBlockError),
    "a freed block in sight": (
        lambda team: entry([write([freed(team), block_of(team)], [1])]),
        InvalidBlockError,
    ),
    "a foreign block": (lambda team: entry([write([foreign(team)], [1])]), InvalidBlockError),
    "one block twice": (twice, InvalidViewError),
    "moves of numbers": (
        lambda team: entry([write([block_of(team)], [1])], [(1, 2)]),
        AttributeError,
    ),
    "a number of moves": (lambda team: entry([write([block_of(team)], [1])], 3), TypeError),
    "half a move": (
        lambda team: entry([write([block_of(team)], [1])], [(block_of(team),)]),
        ValueError,
    ),
    "a foreign move": (
        lambda team: entry([write([block_of(team)], [1])], [(block_of(team), foreign(team))]),
        InvalidBlockError,
    ),
    "a sampler that is not one": (
        lambda team: entry([write([block_of(team)], [1], sampler="greedy")]),
        AttributeError,
    ),
    "a mask of another size": (
        lambda team: entry(
            [write([block_of(team)], [1], SamplerState(GREEDY), torch.ones(7).bool())]
        ),
        RuntimeError,
    ),
    "a mask that allows nothing": (
        lambda team: entry(
            [write([block_of(team)], [1], SamplerState(GREEDY), torch.zeros(128).bool())]
        ),
        InvalidSamplingError,
    ),
    "a text that is too long": (
        lambda team: entry([write([lease_of(team).prompt], [1] * 4096)]),
        ContextLengthError,
    ),
    "events that are not a list": (lambda team: setattr(team, "events", 5), TypeError),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_job_that_wants_nonsense(engine: Engine, expected: list[Rows], name: str) -> None:
    """Whatever it yields, it alone ends, with a reason."""
    place = len(name) % 10
    act, kind = NONSENSE[name]
    caught = fails(engine, expected, VICTIM.job(at(place, act)))
    assert isinstance(caught.__cause__, kind)
    assert caught.partial.drawn == expected[2][: len(caught.partial.drawn)]
    assert len(caught.partial.drawn) in (place, place + 1)


@pytest.mark.parametrize("changed", [False, True])
def test_an_entry_that_is_changed_afterwards(
    model: SharedCacheModel, expected: list[Rows], changed: bool
) -> None:
    """The engine has its own copy of the lists, which it has checked."""
    lists: list[list[Any]] = []

    def ask(team: Team) -> BatchEntry:
        view, tokens = [block_of(team)], [9, 8, 7]
        lists.extend([view, tokens])
        return BatchEntry([Write(view, tokens, SamplerState(GREEDY))])

    direct = Direct.on(model)
    direct.add(VICTIM.job(at(2, ask)))
    while not lists:
        direct.scheduler.advance()
    if changed:
        for values in lists:
            values[:] = [10**6]
    direct.drain()
    assert direct.drawn() == [expected[2]]
    direct.scheduler.prefix_cache.clear()


def test_a_job_that_is_no_generator(engine: Engine, expected: list[Rows]) -> None:
    """Its `run` may raise at once, or return anything."""

    def raising(_: Lease) -> Any:
        raise OSError("at once")

    for run, kind in ((raising, OSError), (lambda _: None, TypeError), (lambda _: [1], TypeError)):
        job = VICTIM.job()
        patched(job, run=run)
        caught = fails(engine, expected, job)
        assert isinstance(caught.__cause__, kind)
        assert caught.partial.drawn == []


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3)], ids=["plain", "exit"])
@pytest.mark.parametrize("fault_before", [False, True])
def test_a_job_whose_result_fails(
    engine: Engine, expected: list[Rows], error: BaseException, fault_before: bool
) -> None:
    """Its handle says so; an earlier error is the one that counts."""
    first = OSError("first")
    job = VICTIM.job(at(3, raiser(first)) if fault_before else None)

    def result(*_: object) -> Outcome:
        raise error

    patched(job, result=result)
    caught = fails(engine, expected, job)
    assert caught.__cause__ is (first if fault_before else error)
    assert caught.partial is None


@pytest.mark.parametrize("how", ["raises", "goes on"])
@pytest.mark.parametrize("why", ["cancel", "error in a pass"])
def test_a_job_that_cannot_clean_up(
    engine: Engine, expected: list[Rows], how: str, why: str
) -> None:
    """What it had reached is kept all the same."""
    job = VICTIM.job()
    run = job.run

    def stubborn(lease: Lease) -> Any:
        steps = run(lease)
        entry = next(steps)
        for _ in range(6):
            entry = steps.send((yield entry))
        try:
            yield BatchEntry([Write([lease.prompt], [500])]) if why != "cancel" else Future()
        finally:
            if how == "raises":
                raise OSError("while closing")
            yield entry

    patched(job, run=stubborn)
    with neighbours(engine, expected):
        handle = engine.submit(job)
        if why == "cancel":
            assert first(handle, 5) == expected[2][:5]
            handle.cancel()
        with pytest.raises(SessionFailedError) as caught:
            handle.result(WAIT)
    assert caught.value.partial.drawn == expected[2][:5]
    assert caught.value.partial.cancelled == (why == "cancel")
    kind = InvalidTokensError if why != "cancel" else OSError if how == "raises" else RuntimeError
    assert isinstance(caught.value.__cause__, kind)


def test_a_job_may_look_at_its_blocks_when_it_is_cancelled(model: SharedCacheModel) -> None:
    """They are freed only after its steps have been closed."""
    direct = Direct.on(model)
    job = VICTIM.job()
    run, lengths = job.run, []

    def careful(lease: Lease) -> Any:
        try:
            yield from run(lease)
        finally:
            lengths.append(len(lease.prompt))
            lease.new_block().extend(lease.prompt)

    patched(job, run=careful)
    task = direct.add(job)
    for _ in range(5):
        direct.scheduler.advance()
    direct.scheduler.cancel(task)
    assert lengths == [40]
    assert direct.outcomes[0][1] is None
    direct.scheduler.prefix_cache.clear()
    assert model.pool.used_pages == 0


@pytest.mark.parametrize("place", [0, 8])
@pytest.mark.parametrize("count", [1, 40])
def test_logits_that_are_no_numbers(place: int, count: int) -> None:
    """A token that overflows in the model ends the job that writes it, and leaves no trace."""
    model = load()
    specs = [Spec(tuple(some_tokens(n, n)), n % 3 + 1, 20) for n in (20, 40, 61)]
    rows = alone(model, [*specs, Spec((7, 8, 9), 2, 16)])
    used = {token for drawn in rows for row in drawn for token in row}
    unused = min({*range(10, 128)} - used - {token for spec in specs for token in spec.prompt})
    embedding: Any = model.model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight[unused] = torch.nan
    bad = at(place, lambda team: BatchEntry([Write([block_of(team)], [unused] * count)]))
    with Engine(model, prefill_chunk=32) as engine:
        handles = [engine.submit(spec.job()) for spec in specs]
        victim = engine.submit(Spec((7, 8, 9), 2, 16).job(bad))
        with pytest.raises(SessionFailedError) as caught:
            victim.result(WAIT)
        late = engine.submit(specs[0].job())
        assert [outcome.drawn for outcome in results([*handles, late])] == [*rows[:3], rows[0]]
    assert isinstance(caught.value.__cause__, NotANumberError)
    assert caught.value.partial.drawn == rows[3][:place]


@pytest.mark.parametrize(
    ("settle", "kind"),
    [
        (lambda future: future.set_exception(OSError("no tool")), OSError),
        (lambda future: future.set_exception(SystemExit(1)), SystemExit),
        (lambda future: future.cancel(), CancelledError),
    ],
    ids=["fails", "exits", "is cancelled"],
)
@pytest.mark.parametrize("early", [False, True])
def test_a_future_that_fails(
    engine: Engine,
    expected: list[Rows],
    settle: Callable[[Future[Any]], Any],
    kind: type[BaseException],
    early: bool,
) -> None:
    """Its error arises in the job that waits, which may catch it or end by it."""
    future: Future[Any] = Future()
    if early:
        settle(future)
    with neighbours(engine, expected):
        handle = engine.submit(VICTIM.job(at(5, lambda _: future)))
        assert first(handle, 5) == expected[2][:5]
        if not early:
            settle(future)
        with pytest.raises(SessionFailedError) as caught:
            handle.result(WAIT)
    assert isinstance(caught.value.__cause__, kind)
    assert caught.value.partial.drawn == expected[2][:5]


def test_a_job_that_catches_the_error_of_a_future(engine: Engine, expected: list[Rows]) -> None:
    """It continues."""
    job = VICTIM.job()
    run = job.run

    def patient(lease: Lease) -> Any:
        future: Future[Any] = Future()
        future.cancel()
        with pytest.raises(CancelledError):
            yield future
        yield from run(lease)

    patched(job, run=patient)
    with neighbours(engine, expected):
        assert engine.submit(job).result(WAIT).drawn == expected[2]
