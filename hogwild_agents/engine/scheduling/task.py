"""A job on its way through the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.pages import Ints, pages_for
from hogwild_agents.engine.scheduling.jobs import BatchEntry, Job, Lease, Steps, Usage, Write


@dataclass(eq=False, slots=True)
class Task:
    """A job and its state.

    Attributes:
        job: The job.
        publish: Called with the job's events after every pass.
        close: Called once, with the result and the error, when the job has ended.
        tokens: The job's prompt, int64.
        submitted: Time of submission, by the monotonic clock.
        usage: What the job has used so far.
        lease: Its memory, once it is admitted.
        steps: The running generator, once its prompt is in the cache.
        entry: What it writes next, checked; None while it waits for `future`.
        future: What it waits for.
        written: Tokens of `entry` that earlier passes have written.
        scheduled: Tokens of `entry` that the coming pass writes.
        offloaded: Its memory while it is preempted.
        missed_pages: Pages that its entry would have taken when it was preempted instead.
        last_pass: The last pass in which it took part.
        ended: Whether it has ended.
    """

    job: Job[Any, Any]
    publish: Callable[[Sequence[Any]], None]
    close: Callable[[Any, BaseException | None], None]
    tokens: Ints
    submitted: float = field(default_factory=time.monotonic)
    usage: Usage = field(default_factory=Usage)
    lease: Lease | None = None
    steps: Steps | None = None
    entry: BatchEntry | None = None
    future: Future[Any] | None = None
    written: int = 0
    scheduled: int = 0
    offloaded: OffloadedBlocks | None = None
    missed_pages: int = 0
    last_pass: int = -1
    ended: bool = False

    def finish(self, result: Any, error: BaseException | None) -> None:
        """Hands over the outcome, and drops the references to its receivers."""
        close, self.close, self.publish = self.close, _ignore, _ignore
        close(result, error)

    @property
    def asleep(self) -> bool:
        """Whether it waits for a future that is not done."""
        return self.future is not None and not self.future.done()

    @property
    def divisible(self) -> bool:
        """Whether its entry may be cut into chunks, as a prompt is."""
        return self.entry is not None and len(self.entry.writes) == 1 and self.remaining > 1

    @property
    def remaining(self) -> int:
        """Tokens of its entry that are still to be written."""
        assert self.entry is not None
        return sum(len(write.tokens) for write in self.entry.writes) - self.written

    @property
    def completes(self) -> bool:
        """Whether the coming pass writes all that remains of its entry."""
        return self.scheduled == self.remaining

    @property
    def unread_pages(self) -> int:
        """Pages that the rest of its prompt will take."""
        if self.steps is not None:
            return 0
        return pages_for(len(self.tokens)) - pages_for(self.written)

    def writes(self) -> list[Write]:
        """What it writes in the coming pass: its entry, or a chunk of it."""
        assert self.entry is not None
        if not self.written and self.completes:
            return [*self.entry.writes]
        (write,) = self.entry.writes
        chunk = write.tokens[self.written : self.written + self.scheduled]
        if self.completes:
            return [Write(write.view, chunk, write.sampler, write.allowed)]
        return [Write(write.view, chunk)]

    def growth(self) -> list[tuple[CacheBlock, int]]:
        """By how many tokens its blocks grow in the coming pass, commits included."""
        assert self.entry is not None
        growth = {write.view[-1]: len(write.tokens) for write in self.writes()}
        for target, source in self.entry.commits if self.completes else ():
            growth[target] = growth.get(target, 0) + len(source) + growth.get(source, 0)
        return [*growth.items()]


def _ignore(*_: Any) -> None:
    """Receives what a task that has ended still sends."""
