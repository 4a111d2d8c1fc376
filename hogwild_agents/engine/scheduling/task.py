"""A job on its way through the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from hogwild_agents.engine.cache.blocks import PAGE, CacheBlock, Slots
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.scheduling.jobs import BatchEntry, Job, Lease, Steps, Usage, Write


@dataclass(eq=False, slots=True)
class Task:
    """A job on its way.

    Attributes:
        job: What is to be done.
        close: Called once with the result and the error, when the job has ended.
        publish: Called with what the job has to tell, after every pass.
        tokens: The job's prompt, int64.
        submitted: When, by the monotonic clock.
        lease: Its memory, once it is admitted.
        steps: The running job, once its prompt is in the cache.
        entry: What it wants to do next; None while it waits for `future`.
        future: What it waits for.
        written: Tokens of a long turn that are in the cache already.
        share: Tokens of its turn that the pass under way writes.
        offloaded: Its memory while it is moved out.
        missed_pages: Pages that its turn would have taken when it was moved out instead.
        last_pass: The last pass in which it took part.
        ended: Whether `close` was called.
    """

    job: Job[Any, Any]
    publish: Callable[[Sequence[Any]], None]
    close: Callable[[Any, BaseException | None], None]
    tokens: Slots
    submitted: float = field(default_factory=time.monotonic)
    usage: Usage = field(default_factory=Usage)
    lease: Lease | None = None
    steps: Steps | None = None
    entry: BatchEntry | None = None
    future: Future[Any] | None = None
    written: int = 0
    share: int = 0
    offloaded: OffloadedBlocks | None = None
    missed_pages: int = 0
    last_pass: int = -1
    ended: bool = False

    def finish(self, result: Any, error: BaseException | None) -> None:
        """Hands over the outcome, and lets go of whoever waits for it."""
        close, self.close, self.publish = self.close, _to_nobody, _to_nobody
        close(result, error)

    @property
    def asleep(self) -> bool:
        """Whether it waits for something that has not come yet."""
        return self.future is not None and not self.future.done()

    @property
    def reading(self) -> bool:
        """Whether its next pass may be cut into chunks."""
        return self.entry is not None and len(self.entry.writes) == 1 and self.left > 1

    @property
    def left(self) -> int:
        """Tokens of its turn that are still to be written."""
        assert self.entry is not None
        return sum(len(write.tokens) for write in self.entry.writes) - self.written

    @property
    def unread_pages(self) -> int:
        """Pages that the rest of its prompt will take."""
        if self.steps is not None:
            return 0
        return -(-len(self.tokens) // PAGE) - -(-self.written // PAGE)

    @property
    def whole(self) -> bool:
        """Whether the pass under way writes all that is left of its turn."""
        return self.share == self.left

    def writes(self) -> list[Write]:
        """What it writes in the pass under way: its turn, or a chunk of it."""
        assert self.entry is not None
        if not self.written and self.whole:
            return [*self.entry.writes]
        (long,) = self.entry.writes
        tokens = long.tokens[self.written : self.written + self.share]
        return [
            Write(long.view, tokens, long.sampler, long.allowed)
            if self.whole
            else Write(long.view, tokens)
        ]

    def growths(self) -> list[tuple[CacheBlock, int]]:
        """Blocks that grow in the pass under way, its moves counted, and by how many tokens."""
        assert self.entry is not None
        grown = {write.view[-1]: len(write.tokens) for write in self.writes()}
        for target, source in self.entry.commits if self.whole else ():
            grown[target] = grown.get(target, 0) + len(source) + grown.get(source, 0)
        return [*grown.items()]


def _to_nobody(*_: Any) -> None:
    """Who listens to a task that has ended."""
