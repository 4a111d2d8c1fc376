"""Blocks: growing runs of tokens in the cache; `pool.py` is the memory behind them.

A block is a growing run of tokens in the cache. Its keys are stored turned to block-local
positions 0, 1, 2, ..., so that it may stand anywhere in any view. Memory is handed out in pages of
`PAGE` tokens; a page may belong to several blocks (`fork`) and is copied when one of them writes.

A block keeps its pages as *extents*, stretches of neighbouring pages, because attention reads a
stretch in place, without copying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hogwild_agents.errors import InvalidBlockError

if TYPE_CHECKING:
    from hogwild_agents.engine.cache.pool import CachePool

PAGE = 32
"""Tokens per page."""

Slots = npt.NDArray[np.int64]


@dataclass(slots=True)
class Extent:
    """`count` neighbouring pages, the first of which is page `first` of the pool."""

    first: int
    count: int


class CacheBlock:
    """A growing run of tokens in the cache of one model; made by `SharedCacheModel.new_block()`."""

    __slots__ = ("_extents", "_freed", "_length", "_pool")

    def __init__(self, pool: CachePool) -> None:
        self._pool = pool
        self._extents: list[Extent] = []
        self._length = 0
        self._freed = False

    def __len__(self) -> int:
        """Tokens in the block."""
        return self._length

    def __bool__(self) -> bool:
        """A block is true even when it holds nothing yet."""
        return True

    def __repr__(self) -> str:
        return f"<Block {'freed' if self._freed else f'of {self._length} tokens'}>"

    def __del__(self) -> None:
        # May run inside any allocation, on any thread: only hand the pages over.
        if getattr(self, "_extents", None):
            self._pool.abandon(self._extents)

    def __copy__(self) -> CacheBlock:
        """Refuses: a plain copy would give the block's memory back a second time."""
        raise InvalidBlockError(f"{self!r} cannot be copied by Python: use fork().")

    def __deepcopy__(self, memo: object) -> CacheBlock:
        """Refuses, as `__copy__`."""
        return self.__copy__()

    def __reduce__(self) -> str:
        """Refuses to be pickled, as `__copy__`."""
        raise InvalidBlockError(f"{self!r} cannot be pickled: its memory belongs to a model.")

    def extend(self, other: CacheBlock) -> None:
        """Appends all tokens of `other` (a commit): keys are turned on by len(self), values copied.

        Args:
            other: A block of the same model; it is left as it is (`clear` it to move the tokens).

        Raises:
            InvalidBlockError: One of the blocks is freed, or they belong to different models.
            OutOfCacheMemoryError: The pool is full; both blocks are unchanged.
        """
        self._pool.require(self, other)
        start, count = self._length, other._length
        if not count:
            return
        with self._pool.growing([(self, count)]), torch.no_grad():
            target = self.slots(start, start + count)
            self._pool.move(other.slots(0, count), target, start)
        self._length += count

    def fork(self) -> CacheBlock:
        """A twin with the same tokens. Memory is shared until one side writes.

        Raises:
            InvalidBlockError: The block is freed.
        """
        self._pool.require(self)
        twin = CacheBlock(self._pool)
        twin._length = self._length
        twin._extents = [Extent(extent.first, extent.count) for extent in self._extents]
        self._pool.share(twin._extents)
        return twin

    def clear(self) -> None:
        """Empties the block; it can be written again.

        Raises:
            InvalidBlockError: The block is freed.
        """
        self.truncate(0)

    def truncate(self, length: int) -> None:
        """Drops every token from position `length` on, and gives their memory back.

        Raises:
            InvalidBlockError: The block is freed, or `length` is negative.
        """
        self._pool.require(self)
        if length < 0:
            raise InvalidBlockError(f"Cannot shorten {self!r} to {length} tokens.")
        self._length = min(self._length, length)
        surplus = sum(extent.count for extent in self._extents) - -(-self._length // PAGE)
        while surplus > 0:
            last = self._extents[-1]
            dropped = min(surplus, last.count)
            last.count -= dropped
            surplus -= dropped
            self._pool.release([Extent(last.first + last.count, dropped)])
            if not last.count:
                self._extents.pop()

    def free(self) -> None:
        """Gives the block's memory back for good. Freeing it again does nothing."""
        if self._freed:
            return
        self.truncate(0)
        self._freed = True
        self._pool.trim()

    def keys(self, layer: int) -> Tensor:
        """A copy of the keys in a layer, turned to block-local positions: [kv_heads, len, key_dim].

        Raises:
            InvalidBlockError: The block is freed.
        """
        self._pool.require(self)
        return self._pool.keys[layer].index_select(
            1, self._pool.tensor(self.slots(0, self._length))
        )

    def values(self, layer: int) -> Tensor:
        """A copy of the values in a layer: [kv_heads, len, value_dim].

        Raises:
            InvalidBlockError: The block is freed.
        """
        self._pool.require(self)
        return self._pool.values[layer].index_select(
            1, self._pool.tensor(self.slots(0, self._length))
        )

    # What follows is for the engine.

    @property
    def pool(self) -> CachePool:
        """The pool that holds the block's memory."""
        return self._pool

    @property
    def freed(self) -> bool:
        """Whether `free` was called."""
        return self._freed

    @property
    def extents(self) -> list[Extent]:
        """The block's pages in order; the pool changes them, nobody else."""
        return self._extents

    @property
    def last_page(self) -> int:
        """The page of the block's last token; the block must not be empty."""
        return self._extents[-1].first + self._extents[-1].count - 1

    def slots(self, start: int, stop: int) -> Slots:
        """Where the tokens start..stop lie: int64 [stop - start], `page * PAGE + offset`."""
        pieces = []
        base = 0
        for extent in self._extents:
            end = base + extent.count * PAGE
            if start < end and stop > base:
                shift = extent.first * PAGE - base
                pieces.append(np.arange(max(start, base) + shift, min(stop, end) + shift))
            base = end
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.int64), *pieces])

    def advance(self, count: int) -> None:
        """Counts `count` tokens, written into reserved room, as the block's own."""
        self._length += count


def pages_of(extents: Iterable[Extent]) -> list[int]:
    """The pages of `extents`, one by one."""
    return [page for e in extents for page in range(e.first, e.first + e.count)]


def slots_of(pages: Sequence[int]) -> Slots:
    """Every slot of these pages: int64 [pages * PAGE]."""
    return (np.array(pages, np.int64)[:, None] * PAGE + np.arange(PAGE)).reshape(-1)
