"""What the engine runs: jobs, which say pass by pass what they want to write.

A job is a generator. It yields a `BatchEntry` and is sent the tokens that were drawn, one per
write. Or it yields a `Future`: then it takes part in no pass until the future is done, and is sent
its result. The job ends when the generator returns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.rows import Tokens, View
from hogwild_agents.engine.sampling import SamplerState


@dataclass(slots=True)
class Write:
    """What one worker writes in a pass.

    Attributes:
        view: The blocks that it attends to; it writes to the last one.
        tokens: The new token ids, at least one.
        sampler: Draws the token that follows; None if none is wanted.
        allowed: bool [vocab], the tokens that a grammar allows next, or None for all.
    """

    view: View
    tokens: Tokens
    sampler: SamplerState | None = None
    allowed: Tensor | None = None


@dataclass(slots=True)
class BatchEntry:
    """A job's part in one pass.

    An entry with a single write may be cut into chunks, one per pass. All others run whole.

    Attributes:
        writes: At least one.
        commits: Pairs (target, source), executed after the pass: the tokens of the source move to
            the end of the target.
    """

    writes: Sequence[Write]
    commits: Sequence[tuple[CacheBlock, CacheBlock]] = ()


Drawn: TypeAlias = Sequence[int | None]
"""For each write of an entry the token that its sampler drew, or None."""

Steps: TypeAlias = Generator["BatchEntry | Future[Any]", Any, None]
"""A running job; see the docstring of this module."""


@dataclass(slots=True)
class Usage:
    """What a job has used so far; the scheduler keeps it up to date.

    Attributes:
        prompt_tokens: Length of its prompt.
        reused_tokens: How many of these came from the prefix cache.
        passes: Forward passes in which it took part, those for its prompt included.
        preemptions: How often it was preempted, that is, moved to host memory.
        waited: Seconds from submission until it was admitted.
        prefilled: Seconds from submission until its prompt was in the cache.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    passes: int = 0
    preemptions: int = 0
    waited: float = 0.0
    prefilled: float = 0.0


@dataclass(slots=True)
class Lease:
    """The cache memory of one job. The job makes its blocks here; all are freed when it ends.

    Attributes:
        model: The model whose cache it is.
        prompt: Holds the job's prompt when the job begins.
        blocks: All blocks of the job.
        usage: What the job has used so far.
    """

    model: SharedCacheModel
    prompt: CacheBlock = field(init=False)
    blocks: list[CacheBlock] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        """Makes the block of the prompt."""
        self.prompt = self.new_block()

    def new_block(self) -> CacheBlock:
        """An empty block of this job."""
        self.blocks.append(self.model.new_block())
        return self.blocks[-1]

    def fork(self, block: CacheBlock) -> CacheBlock:
        """A twin of `block` that belongs to this job."""
        self.blocks.append(block.fork())
        return self.blocks[-1]

    def free(self, block: CacheBlock) -> None:
        """Gives a block's memory back before the job ends."""
        self.blocks.remove(block)
        block.free()

    def close(self) -> None:
        """Frees every block, even if freeing one of them fails."""
        with ExitStack() as stack:
            while self.blocks:
                stack.callback(self.blocks.pop().free)


E = TypeVar("E")
R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[E, R_co]):
    """What `Engine.submit` takes.

    `check` is called on the thread that submits the job, `hear` and `stop` on any thread, and
    everything else on the engine's thread, where nothing may be slow.

    Attributes:
        prompt: Token ids that the job's prompt block begins with, at least one. Jobs whose prompts
            begin alike share the memory of that beginning.
        max_cache_tokens: The most tokens that all of its blocks may ever hold together.
        max_writers: The most workers that write in one pass.
        events: What it has to publish; the engine takes the events from here after every pass.
    """

    prompt: Sequence[int]
    max_cache_tokens: int
    max_writers: int
    events: list[E]

    def check(self, model: SharedCacheModel) -> None:
        """Called before any work; raises a HogwildError if the job cannot run on this model."""

    def run(self, lease: Lease) -> Steps:
        """The job itself; called once its prompt is in `lease.prompt`."""

    def hear(self, message: Any) -> None:
        """Takes a message from outside into account before the next pass; from any thread."""

    def stop(self) -> None:
        """Asks the job to finish properly and soon; from any thread."""

    def result(self, usage: Usage, error: BaseException | None, cancelled: bool) -> R_co:
        """What the job has reached; also called after an error or a cancel, or before it began."""
