"""Ten minutes of chaos: sessions submitted, cancelled, stopped, talked to and broken at random.

From threads and from asyncio, on one small cache, with engines closed and made anew. What must
hold: no handle hangs, no partial result is lost (the result holds every token that was streamed),
and no page of the cache leaks.

    make soak
    python -m tests.soak --minutes 1 --seed 3
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from typing import Any

import torch
import typer
from rich.progress import Progress

from hogwild_agents.engine import Engine, Handle, SamplingParams, SharedCacheModel
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import HogwildError, SessionFailedError
from hogwild_agents.team import (
    CollaborationPrompt,
    Interrupt,
    InterruptContext,
    RedundancyCheck,
    Result,
    Team,
    Token,
)
from tests.unit.engine.families import Family, build
from tests.unit.team.tokenizers import byte_level, plain_bytes

PATIENCE = 120.0
"""Seconds after which a handle counts as hung; a session takes a few."""

CACHE_PAGES = 120


class BrokenOnPurposeError(Exception):
    """A fault in an interrupt or a layout."""


class Chaos:
    """Everything that happens, and what has been seen of it."""

    def __init__(self, model: SharedCacheModel, seed: int, deadline: float) -> None:
        self.model = model
        self.seed = seed
        self.deadline = deadline
        self.tokenizers = [plain_bytes(), byte_level()]
        self.engine = Engine(model, prefill_chunk=64)
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.lock = threading.Lock()

    def over(self) -> bool:
        """Whether time is up, or something has gone wrong."""
        return time.monotonic() > self.deadline or bool(self.problems)

    def team(self, rng: random.Random) -> Team:
        """A team of any kind."""

        def moody(_: InterruptContext) -> str | None:
            mood = rng.random()
            if mood < 0.05:
                raise BrokenOnPurposeError("an interrupt fails")
            if mood < 0.1:
                return 3  # type: ignore[return-value]
            return "Go on. " * rng.choice([1, 100]) if mood < 0.5 else None

        def broken(blocks: Any) -> Any:
            if rng.random() < 0.01:
                raise BrokenOnPurposeError("a layout fails")
            return [[*blocks.common, own] for own in blocks.work]

        layouts: list[Any] = ["combined", "combined", "contiguous", "interleaved", broken]
        interrupts: list[list[Interrupt]] = [
            [],
            [RedundancyCheck(every=20)],
            [moody, RedundancyCheck(5)],
        ]
        budget = rng.randint(1, 60)
        return Team(
            rng.choice(self.tokenizers),
            workers=rng.choice([1, 2, 2, 3, 4]),
            layout=rng.choice(layouts),
            prompt=CollaborationPrompt(style="brief", examples=rng.random() < 0.3),
            interrupts=rng.choice(interrupts),
            finisher=rng.choice(["reply", "answer"]),
            budget=budget,
            reply_tokens=rng.randint(1, 30),
            snapshots=[rng.randint(1, budget)] if rng.random() < 0.3 else [],
            sampling=SamplingParams(temperature=rng.choice([0.0, 1.0]), seed=rng.randint(0, 99)),
            may_end=rng.random() < 0.3,
        )

    def submit(self, rng: random.Random) -> Handle[Any, Result] | None:
        """A session on the current engine, or None if it is refused."""
        words = "a problem " * rng.randint(1, 40)
        try:
            handle = self.engine.submit(self.team(rng).session(words))
        except (HogwildError, BrokenOnPurposeError) as error:
            self.count(f"refused: {type(error).__name__}")
            return None
        self.count("submitted")
        return handle

    def disturb(self, handle: Handle[Any, Result], rng: random.Random) -> None:
        """Does something to a session, or nothing."""
        deed = rng.random()
        try:
            if deed < 0.2:
                handle.cancel()
            elif deed < 0.35:
                handle.stop()
            elif deed < 0.6:
                handle.say("Listen. " * rng.choice([1, 30]))
            elif deed < 0.65:
                self.poison(handle)
        except HogwildError:
            self.count("too late")

    def poison(self, handle: Handle[Any, Result]) -> None:
        """Puts a NaN among a session's values, as a broken kernel might."""
        lease = handle._task.lease
        if lease is not None and len(lease.prompt):
            slots = lease.prompt.slots(0, 1)
            self.model.pool.values[0][:, int(slots[0])] = torch.nan
            self.count("poisoned")

    def check(self, handle: Handle[Any, Result], events: list[Any]) -> None:
        """Whether the result holds everything that was streamed."""
        try:
            result = handle.result(0)
            self.count(result.finish_reason)
        except SessionFailedError as error:
            result = error.partial
            self.count(f"failed: {type(error.__cause__).__name__}")
        if not isinstance(result, Result):
            self.problems.append(f"no partial result but {result!r}")
            return
        tokens = [event for event in events if isinstance(event, Token)]
        drawn = Counter(event.worker for event in tokens)
        if +drawn != +Counter(result.tokens):
            self.problems.append(f"{drawn} tokens were streamed, the result has {result.tokens}")
        for worker in result.workers:
            streamed = "".join(event.text for event in tokens if event.worker == worker)
            recorded = "".join(step.written for step in result.steps_of(worker))
            if streamed != recorded:
                self.problems.append(f"{worker} wrote {streamed!r}, the result has {recorded!r}")
        self.count("preemptions", result.preemptions)
        self.count("reused tokens", result.reused_tokens)

    def count(self, what: str, times: int = 1) -> None:
        """Notes that something happened."""
        with self.lock:
            self.counts[what] += times

    # The threads and tasks.

    def by_thread(self, number: int) -> None:
        """Works with a few sessions at once, from a thread."""
        rng = random.Random(f"{self.seed} thread {number}")
        while not self.over():
            handles = [handle for _ in range(rng.randint(1, 4)) if (handle := self.submit(rng))]
            for handle in handles:
                for event in handle:
                    if rng.random() < 0.02:
                        self.disturb(handle, rng)
                    del event
            for handle in handles:
                self.check(handle, [*handle])

    async def by_tasks(self) -> None:
        """Works with many sessions at once, from asyncio."""

        async def work(number: int) -> None:
            rng = random.Random(f"{self.seed} task {number}")
            while not self.over():
                handle = self.submit(rng)
                if handle is None:
                    await asyncio.sleep(0)
                    continue
                events = []
                async with asyncio.timeout(PATIENCE):
                    async for event in handle:
                        events.append(event)
                        if rng.random() < 0.02:
                            self.disturb(handle, rng)
                self.check(handle, events)

        try:
            await asyncio.gather(*(work(number) for number in range(6)))
        except TimeoutError:
            self.problems.append(f"a handle hung for {PATIENCE} s (asyncio)")

    def renew(self) -> None:
        """Closes the engine while it is used, looks for leaks, and makes a new one."""
        old = self.engine
        old.close()
        with self.lock:
            used = self.model.pool.used_pages
        if used:
            self.problems.append(f"{used} pages leaked")
        self.engine = Engine(self.model, prefill_chunk=64)
        self.count("engines closed")


def main(minutes: float = 10.0, seed: int = 0) -> None:
    """Runs the chaos with a progress bar; exits with 1 if anything went wrong."""
    torch.set_num_threads(1)
    family = Family("qwen3", "qwen3", {"max_position_embeddings": 1024, "vocab_size": 1024})
    built = build(family)
    probe = SharedCacheModel.from_pretrained(built)
    model = SharedCacheModel.from_pretrained(
        build(family), cache_bytes=CACHE_PAGES * PAGE * probe.pool.bytes_per_token
    )
    chaos = Chaos(model, seed, time.monotonic() + 60 * minutes)
    threads = [threading.Thread(target=chaos.by_thread, args=(n,), daemon=True) for n in range(4)]
    threads.append(threading.Thread(target=asyncio.run, args=(chaos.by_tasks(),), daemon=True))
    for thread in threads:
        thread.start()
    rng = random.Random(seed)
    with Progress() as progress:
        bar = progress.add_task("chaos", total=60 * minutes)
        renewal = time.monotonic() + 20
        while not chaos.over():
            time.sleep(1)
            progress.update(
                bar,
                completed=60 * minutes - (chaos.deadline - time.monotonic()),
                description=f"{chaos.counts['submitted']} sessions",
            )
            if time.monotonic() > renewal:
                chaos.renew()
                renewal += rng.randint(5, 40)
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    hung = [thread.name for thread in threads if thread.is_alive()]
    if hung:
        chaos.problems.append(f"hung: {hung}")
    chaos.renew()
    chaos.engine.close()
    left = [t.name for t in threading.enumerate() if t.name.startswith("hogwild")]
    if left:
        chaos.problems.append(f"threads left behind: {left}")
    for what, times in sorted(chaos.counts.items()):
        print(f"{times:8,}  {what}")
    for problem in chaos.problems:
        print("PROBLEM:", problem)
    raise typer.Exit(1 if chaos.problems else 0)


if __name__ == "__main__":
    typer.run(main)
