"""Jobs for the tests of the engine: teams that decode, commit and fork, and ways to run them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import (
    BatchEntry,
    CacheBlock,
    Engine,
    Handle,
    Lease,
    SamplerState,
    SamplingParams,
    SharedCacheModel,
    Usage,
    Write,
)
from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.scheduling.jobs import Steps
from hogwild_agents.engine.scheduling.scheduler import Scheduler
from hogwild_agents.engine.scheduling.task import Task
from tests.unit.engine.families import Family, build
from tests.unit.engine.reference import some_tokens

WAIT = 30.0
"""Seconds after which a test gives up on what should come at once."""

QWEN = Family("qwen3", "qwen3", {"max_position_embeddings": 4096})
GREEDY = SamplingParams(temperature=0)
LAYOUTS = ("contiguous", "interleaved", "combined", "growing", "branching")

E = TypeVar("E")
T = TypeVar("T")
Rows = list[tuple[int | None, ...]]


@dataclass
class Outcome:
    """What a team reached: the tokens of every pass, and what the engine reported at the end."""

    drawn: Rows
    answers: list[Any]
    heard: list[Any]
    usage: Usage
    error: BaseException | None
    cancelled: bool


class Team:
    """Workers on one prompt, each of which writes one token per pass.

    Args:
        prompt: Token ids.
        workers: Number of workers.
        passes: Number of passes in which they write.
        layout: What they see of each other, and what is committed or forked.
        every: Passes between two commits or forks.
        params: How they choose tokens.
        before: Called before every pass with the team and the pass's number. What it returns,
            unless None, is yielded first; the answer to that is kept.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        workers: int = 2,
        passes: int = 20,
        *,
        layout: str = "contiguous",
        every: int = 7,
        params: SamplingParams = GREEDY,
        before: Callable[[Team, int], Any] | None = None,
    ) -> None:
        self.prompt = prompt
        self.max_cache_tokens = len(prompt) + workers * (passes + every) + 8
        self.max_writers = workers
        self.events: list[Any] = []
        self.drawn: Rows = []
        self.answers: list[Any] = []
        self.heard: list[Any] = []
        self.lease: Lease | None = None
        self._passes = passes
        self._layout = layout
        self._every = every
        self._params = params
        self._before = before
        self._stopped = threading.Event()

    def check(self, model: SharedCacheModel) -> None:
        """Accepts any model."""

    def run(self, lease: Lease) -> Steps:
        """Decodes, and commits or forks now and then."""
        self.lease = lease
        own = [lease.new_block() for _ in range(self.max_writers)]
        shared = [lease.prompt]
        if self._layout in ("interleaved", "combined"):
            shared.append(lease.new_block())
        if self._layout == "combined":
            shared.append(lease.new_block())
            yield BatchEntry([Write(shared, [5, 6, 7])])
        seeds = range(self.max_writers)
        samplers = [SamplerState(_seeded(self._params, seed)) for seed in seeds]
        pending = [[3 + worker] for worker in seeds]
        for index in range(self._passes):
            if self._stopped.is_set():
                return
            if self._before is not None:
                extra = self._before(self, index)
                if extra is not None:
                    self.answers.append((yield extra))
            writes = [
                Write([*shared, *self._seen(own, block), block], tokens, sampler)
                for block, tokens, sampler in zip(own, pending, samplers, strict=True)
            ]
            due = index % self._every == self._every - 1
            target = {"contiguous": None, "branching": None, "growing": lease.prompt}.get(
                self._layout, shared[min(1, len(shared) - 1)]
            )
            commits = (
                [(target, own[index % self.max_writers])] if due and target is not None else []
            )
            drawn = yield BatchEntry(writes, commits)
            self.drawn.append(tuple(drawn))
            self.events.append(tuple(drawn))
            pending = [[token] for token in drawn]
            if due and self._layout == "branching":
                yield from self._branch(lease, own[0])

    def _seen(self, blocks: list[CacheBlock], own: CacheBlock) -> list[CacheBlock]:
        """What a worker sees of the others."""
        return [] if self._layout == "interleaved" else [b for b in blocks if b is not own]

    def _branch(self, lease: Lease, block: CacheBlock) -> Steps:
        """Asks two twins of the prompt and a worker's block what comes next."""
        twins = [lease.fork(block) for _ in range(2)]
        drawn = yield BatchEntry(
            [
                Write([lease.prompt, twin], [9 + i, 8], SamplerState(GREEDY))
                for i, twin in enumerate(twins)
            ]
        )
        self.drawn.append(tuple(drawn))
        for twin in twins:
            lease.free(twin)

    def hear(self, message: Any) -> None:
        """Records a text; refuses anything else."""
        if not isinstance(message, str):
            raise TypeError("say it with words")
        self.heard.append(message)

    def stop(self) -> None:
        """Ends before the next pass."""
        self._stopped.set()

    def result(self, usage: Usage, error: BaseException | None, cancelled: bool) -> Outcome:
        """Everything that was recorded."""
        return Outcome(self.drawn, self.answers, self.heard, usage, error, cancelled)


def patched(job: Team, **methods: Any) -> Team:
    """The job, after some of its methods have been replaced."""
    vars(job).update(methods)
    return job


def _seeded(params: SamplingParams, worker: int) -> SamplingParams:
    return params if params.seed is None else replace(params, seed=params.seed + worker)


@dataclass(frozen=True)
class Spec:
    """Describes a team, so that it can be made more than once."""

    prompt: tuple[int, ...]
    workers: int = 2
    passes: int = 20
    layout: str = "contiguous"
    seed: int | None = None  # greedy if None

    def job(self, before: Callable[[Team, int], Any] | None = None) -> Team:
        """A new team."""
        params = GREEDY
        if self.seed is not None:
            params = SamplingParams(temperature=0.8, seed=self.seed)
        return Team(
            self.prompt,
            self.workers,
            self.passes,
            layout=self.layout,
            params=params,
            before=before,
        )


SPEC = Spec(tuple(some_tokens(40, 2)), workers=2, passes=12)
"""A team of two for a few passes."""


def some_specs(
    count: int, seed: int = 3, *, sampled: bool = False, passes: tuple[int, int] = (5, 25)
) -> list[Spec]:
    """Teams of all sizes and layouts. Most prompts begin alike."""
    rng = np.random.default_rng(seed)
    base = some_tokens(100, seed)
    specs = []
    for index in range(count):
        common = 0 if index % 5 == 4 else int(rng.integers(20, 100))
        own = rng.integers(0, 128, int(rng.integers(1, 60))).tolist()
        specs.append(
            Spec(
                (*base[:common], *own),
                workers=1 + index % 4,
                passes=int(rng.integers(*passes)),
                layout=LAYOUTS[index % len(LAYOUTS)],
                seed=10 * index + 7 if sampled else None,
            )
        )
    return specs


def load(pages: int | None = None, family: Family = QWEN) -> SharedCacheModel:
    """A tiny model with a cache of so many pages, or of any size."""
    token = 4 * 2 * 2 * (16 + 16)  # float32, layers, kv_heads, key and value
    cache_bytes = None if pages is None else pages * PAGE * token
    model = SharedCacheModel.from_pretrained(
        build(family), cache_bytes=cache_bytes, self_check=pages is None
    )
    assert model.pool.bytes_per_token == token
    assert pages in (None, model.pool.limit_pages)
    return model


def alone(model: SharedCacheModel, specs: Iterable[Spec]) -> list[Rows]:
    """What each team draws when it runs alone; no draw may be a close call."""
    rows = []
    for spec in specs:
        with pytest.MonkeyPatch.context() as patch, Engine(model) as engine:
            margins = _margins(model, patch, spec)
            rows.append(engine.submit(spec.job()).result(WAIT).drawn)
        assert min(margins) > (1e-4 if spec.seed is None else 1e-6), (
            f"another token was nearly drawn by {spec}: choose another seed"
        )
    assert model.pool.used_pages == 0
    return rows


def _margins(model: SharedCacheModel, patch: pytest.MonkeyPatch, spec: Spec) -> list[float]:
    """The margins by which the tokens that `spec` draws win; filled as it draws."""
    margins: list[float] = []
    run, search = model.run, torch.searchsorted

    def spy(rows: Sequence[Row]) -> Tensor:
        logits = run(rows)
        best = logits.topk(2).values
        margins.append(float((best[:, 0] - best[:, 1]).min()))
        return logits

    def spy_draws(heights: Tensor, points: Tensor, right: bool) -> Tensor:
        margins.append(float(((heights - points).abs() / heights[:, -1:]).min()))
        return search(heights, points, right=right)

    if spec.seed is None:
        patch.setattr(model, "run", spy)
    else:
        patch.setattr(torch, "searchsorted", spy_draws)
    return margins


@dataclass
class Spy:
    """Counts the tokens of every pass of a model, and can make a pass fail or wait.

    Attributes:
        passes: For each call the number of tokens of each row.
        before: Called with the views of a pass; may raise, or wait.
    """

    model: SharedCacheModel
    patch: pytest.MonkeyPatch
    before: Callable[[Sequence[Sequence[CacheBlock]]], None] | None = None
    passes: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Takes the place of `run`."""
        run = self.model.run

        def spy(rows: Sequence[Row]) -> Tensor:
            self.passes.append([row.count for row in rows])
            if self.before is not None:
                self.before([row.view for row in rows])
            return run(rows)

        self.patch.setattr(self.model, "run", spy)


class Gate:
    """Holds the engine's thread in a pass, or a job in its steps, until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Semaphore(0)
        self._open = threading.Semaphore(0)

    def wait(self, *_: object) -> None:
        """Called from the thread that is to be held."""
        self._reached.release()
        assert self._open.acquire(timeout=WAIT), "the gate was not opened"

    def reached(self) -> None:
        """Returns when the other thread is held."""
        assert self._reached.acquire(timeout=WAIT), "no thread came to the gate"

    def open(self, times: int = 1) -> None:
        """Lets the other thread pass, so many times; also before it has come."""
        self._open.release(times)


@dataclass
class Direct:
    """A scheduler without a thread, and the jobs that were given to it."""

    scheduler: Scheduler
    tasks: list[Task] = field(default_factory=list)
    outcomes: dict[int, tuple[Any, BaseException | None]] = field(default_factory=dict)
    woken: int = 0

    @classmethod
    def on(
        cls, model: SharedCacheModel, prefill_chunk: int = 512, prefix_pages: int = 10**6
    ) -> Self:
        """A scheduler on a model."""
        made: list[Self] = []

        def wake() -> None:
            made[0].woken += 1

        made.append(cls(Scheduler(model, prefill_chunk, prefix_pages, wake)))
        return made[0]

    def add(self, job: Team) -> Task:
        """Checks and queues a job."""
        index = len(self.tasks)

        def close(result: Any, error: BaseException | None) -> None:
            assert index not in self.outcomes, "a job ends once"
            self.outcomes[index] = (result, error)

        task = Task(job, lambda _: None, close, self.scheduler.check(job))
        self.tasks.append(task)
        self.scheduler.add(task)
        return task

    def drain(self, rounds: int = 20_000) -> int:
        """Advances until there is nothing to do; returns how often that was."""
        for count in range(rounds):
            if not self.scheduler.advance():
                return count
        raise AssertionError(f"still busy after {rounds} rounds")

    def drawn(self) -> list[Rows]:
        """What each job drew; all must have ended well."""
        assert len(self.outcomes) == len(self.tasks)
        assert [error for _, error in self.outcomes.values() if error is not None] == []
        return [self.outcomes[index][0].drawn for index in range(len(self.tasks))]


def pages_of(blocks: Iterable[CacheBlock]) -> set[int]:
    """The pages of some blocks."""
    return {page for b in blocks for e in b.extents for page in range(e.first, e.first + e.count)}


def results(handles: Iterable[Handle[Any, Outcome]]) -> list[Outcome]:
    """The outcomes of jobs that end well."""
    return [handle.result(WAIT) for handle in handles]


def within(act: Callable[[], T]) -> T:
    """Calls `act` on a new thread, so that a test fails where it would hang."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:  # noqa: BLE001  raised again below
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(WAIT)


def first(handle: Handle[E, Any], count: int) -> list[E]:
    """The first events of a job."""
    return within(lambda: list(islice(handle, count)))


def done_future(value: Any) -> Future[Any]:
    """A future that is done already."""
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def plant(block: CacheBlock, tokens: Sequence[int]) -> None:
    """Appends tokens without a model; `check_planted` recognises them."""
    pool, start = block.pool, len(block)
    pool.reserve([(block, len(tokens))])
    slots = pool.tensor(block.slots(start, start + len(tokens)))
    numbers = torch.tensor(tokens, dtype=torch.float32)[:, None]
    for _, keys, values in pool.storage():
        keys[:, slots] = 3 * numbers
        values[:, slots] = numbers
    block.advance(len(tokens))


def check_planted(block: CacheBlock, tokens: Sequence[int]) -> None:
    """Asserts that a block holds just these tokens."""
    assert len(block) == len(tokens)
    numbers = torch.tensor(tokens, dtype=torch.float32)[:, None]
    for layer in range(len(block.pool.layers)):
        keys, values = block.keys(layer), block.values(layer)
        assert torch.equal(values, numbers.expand_as(values))
        assert torch.equal(keys, (3 * numbers).expand_as(keys))
