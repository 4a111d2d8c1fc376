"""What the engine runs: a job says what it wants to write in its next pass, and is told what came.

A job is a generator. It yields a `BatchEntry` and is sent the tokens that were drawn, one per
write; or it yields a `Future`, sleeps until that is done and is sent its result. It ends when it
returns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.model import SharedCacheModel, Tokens
from hogwild_agents.engine.sampling import SamplerState


@dataclass(slots=True)
class Write:
    """What one stream writes in a pass.

    Attributes:
        view: The blocks it attends to; it writes to the last one.
        tokens: The new ids, at least one.
        sampler: Chooses the token that follows; None if none is wanted.
        allowed: bool [vocab], the tokens that a grammar allows next, or None for all.
    """

    view: Sequence[CacheBlock]
    tokens: Tokens
    sampler: SamplerState | None = None
    allowed: Tensor | None = None


@dataclass(slots=True)
class BatchEntry:
    """A job's part in one pass.

    A turn with a single write may be cut into chunks, one per pass; all others run whole.

    Attributes:
        writes: At least one.
        commits: Pairs (target, source), done after the pass: the source's tokens move to the end of
            the target, and the source is empty.
    """

    writes: Sequence[Write]
    commits: Sequence[tuple[CacheBlock, CacheBlock]] = ()


Drawn: TypeAlias = Sequence[int | None]
"""For each write of a turn the token that its stream chose, or None."""

Steps: TypeAlias = Generator["BatchEntry | Future[Any]", Any, None]
"""A running job; see the module."""


@dataclass(slots=True)
class Usage:
    """What a job has cost so far; the scheduler keeps it.

    Attributes:
        prompt_tokens: Length of its prompt.
        reused_tokens: Of these, the ones found in the cache.
        passes: Forward passes in which it took part, those for its prompt counted.
        preemptions: Times it was moved to host memory.
        waited: Seconds from submission until its prompt was begun.
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
    """The cache memory of one job: it makes its blocks here, and all are freed when it ends.

    Attributes:
        model: Whose cache it is.
        prompt: Holds the job's prompt when the job begins.
        blocks: All of the job's blocks.
        usage: What the job has cost so far.
    """

    model: SharedCacheModel
    prompt: CacheBlock = field(init=False)
    blocks: list[CacheBlock] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        """Makes the prompt's block."""
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
        """Frees every block, also when one of them fails to."""
        with ExitStack() as stack:
            while self.blocks:
                stack.callback(self.blocks.pop().free)


E = TypeVar("E")
R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[E, R_co]):
    """What `Engine.submit` takes.

    `check` is called on the submitter's thread, `hear` and `stop` on anybody's, all else on the
    engine's, where nothing may be slow.

    Attributes:
        prompt: Ids that the job's prompt block begins with, at least one; shared with other jobs'
            prompts as far as they are alike.
        most_tokens: The most tokens that all of its blocks may ever hold together.
        max_writers: The most workers that write in one pass.
        events: What it tells the world; the engine takes them from here after every pass.
    """

    prompt: Sequence[int]
    most_tokens: int
    max_writers: int
    events: list[E]

    def check(self, model: SharedCacheModel) -> None:
        """Raises a HogwildError if the job cannot run on this model; before any work."""

    def run(self, lease: Lease) -> Steps:
        """The job, begun once its prompt is in `lease.prompt`."""

    def hear(self, message: Any) -> None:
        """Takes a message from outside into account before the next pass; from any thread."""

    def stop(self) -> None:
        """Asks the job to come to a proper end soon; from any thread."""

    def result(self, usage: Usage, error: BaseException | None, cancelled: bool) -> R_co:
        """What was reached, also after a fault, a cancel, or before it began."""
