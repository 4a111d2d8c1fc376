"""Random passes over random blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from hypothesis import strategies as st

from hogwild_agents.engine.attention.interface import Pass, Row
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool

LONGEST = 200
"""No block grows longer than this."""

LENGTHS = (1, 2, 3, 17, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1, 100)
GAPS = (0, 0, 0, 40, 5_000, 60_000)


@dataclass(frozen=True)
class Grow:
    """`count` more tokens at the end of a block."""

    block: int
    count: int


@dataclass(frozen=True)
class Fork:
    """A new block, a fork of `block`."""

    block: int


@dataclass(frozen=True)
class Commit:
    """`source` is appended to `block` and emptied."""

    block: int
    source: int


@dataclass(frozen=True)
class Writer:
    """A worker that is not idle.

    Attributes:
        view: The numbers of its blocks.
        count: How many tokens it writes.
        gap: Positions by which its own block begins later, as if the blocks before it were longer.
    """

    view: tuple[int, ...]
    count: int
    gap: int = 0


@dataclass(frozen=True)
class Scene:
    """How blocks were written, starting with `blocks` empty ones, and the pass that follows.

    If it is `fragmented`, every fourth page is taken, so that an extent has at most three pages.
    """

    blocks: int
    past: tuple[Grow | Fork | Commit, ...]
    writers: tuple[Writer, ...]
    seed: int = 0
    fragmented: bool = False


@st.composite
def scenes(draw: st.DrawFn, counts: Sequence[int]) -> Scene:
    """Any scene: blocks grow in turns, so that they are fragmented; components may be interleaved.

    Args:
        draw: Given by Hypothesis.
        counts: How many tokens a worker may write.
    """
    blocks = draw(st.integers(1, 6))
    lengths = [0] * blocks
    past: list[Grow | Fork | Commit] = []
    for event in draw(st.lists(st.sampled_from(["grow"] * 5 + ["fork", "commit"]), max_size=10)):
        block = draw(st.integers(0, len(lengths) - 1))
        if event == "fork":
            past.append(Fork(block))
            lengths.append(lengths[block])
        elif event == "commit":
            source = draw(st.integers(0, len(lengths) - 1))
            if source != block and lengths[source] and lengths[block] + lengths[source] <= LONGEST:
                past.append(Commit(block, source))
                lengths[block], lengths[source] = lengths[block] + lengths[source], 0
        else:
            count = draw(st.sampled_from(LENGTHS))
            if lengths[block] + count <= LONGEST:
                past.append(Grow(block, count))
                lengths[block] += count
    islands = draw(st.integers(1, min(3, len(lengths))))
    writers: dict[int, Writer] = {}
    for _ in range(draw(st.integers(1, 5))):
        island = range(draw(st.integers(0, islands - 1)), len(lengths), islands)
        view = draw(st.lists(st.sampled_from(island), min_size=1, max_size=5, unique=True))
        writer = Writer(tuple(view), draw(st.sampled_from(counts)), draw(st.sampled_from(GAPS)))
        writers.setdefault(view[-1], writer)
    return Scene(
        blocks,
        tuple(past),
        tuple(writers.values()),
        draw(st.integers(0, 1000)),
        draw(st.booleans()),
    )


Pool = TypeVar("Pool", bound=CachePool)


@dataclass
class Stage(Generic[Pool]):
    """A scene set up in a pool, ready for its pass.

    Attributes:
        pool: The pool.
        scene: The scene.
        blocks: Its blocks in the pool.
        texts: What each block holds after the pass; every token has its own number.
        new: The numbers of the tokens that the pass writes, packed.
        current: The pass.
    """

    pool: Pool
    scene: Scene
    blocks: list[CacheBlock] = field(init=False)
    texts: list[list[int]] = field(init=False)
    new: list[int] = field(init=False)
    current: Pass = field(init=False)

    def __post_init__(self) -> None:
        numbers = itertools.count()
        if self.scene.fragmented:
            if not len(self.pool._owners):
                self.pool._grow(self.pool.limit_pages)
            self.pool._owners[3::4] = 1
        self.blocks = [CacheBlock(self.pool) for _ in range(self.scene.blocks)]
        self.texts = [[] for _ in self.blocks]
        for step in self.scene.past:
            block, text = self.blocks[step.block], self.texts[step.block]
            if isinstance(step, Fork):
                self.blocks.append(block.fork())
                self.texts.append(list(text))
            elif isinstance(step, Commit):
                block.extend(self.blocks[step.source])
                self.blocks[step.source].clear()
                text += self.texts[step.source]
                self.texts[step.source] = []
            else:
                new = list(itertools.islice(numbers, step.count))
                self.pool.reserve([(block, step.count)])
                self.plant(block, new)
                block.advance(step.count)
                text += new
        self.current = self._begin()
        self.new = []
        for row, writer in zip(self.current.rows, self.scene.writers, strict=True):
            new = list(itertools.islice(numbers, row.count))
            self.new += new
            self.texts[writer.view[-1]] += new

    def plant(self, block: CacheBlock, tokens: Sequence[int]) -> None:
        """Stores the keys and values of tokens at a block's end; subclasses that have any do so."""

    def _begin(self) -> Pass:
        """The pass, with room reserved for its tokens."""
        writers = self.scene.writers
        growth = {writer.view[-1]: writer.count for writer in writers}
        self.pool.reserve([(self.blocks[block], count) for block, count in growth.items()])
        rows = []
        for worker, writer in enumerate(writers):
            view = [self.blocks[block] for block in writer.view]
            lengths = [len(self.blocks[block]) + growth.get(block, 0) for block in writer.view]
            starts = [0, *itertools.accumulate(lengths[:-1])]
            starts[-1] += writer.gap
            tokens = np.arange(writer.count)
            rows.append(Row(worker, view, tokens, starts, len(view[-1])))
        return Pass(self.pool, rows)
