"""Blocks: growing runs of tokens in the cache, the only thing that a view is made of.

The keys of a block are stored rotated to block-local positions 0, 1, 2, ..., so that the block may
stand anywhere in any view. A page of memory may belong to several blocks (`fork`); it is copied
when one of them writes to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hogwild_agents.engine.cache.pages import Extent, PageTable
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import InvalidBlockError


class CacheBlock(PageTable):
    """A growing run of tokens in the cache of one model; made by `SharedCacheModel.new_block()`."""

    __slots__ = ("_freed", "_pool")

    def __init__(self, pool: CachePool) -> None:
        super().__init__()
        self._pool = pool
        self._freed = False

    def __repr__(self) -> str:
        return f"<Block {'freed' if self._freed else f'of {len(self)} tokens'}>"

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

    @property
    def pool(self) -> CachePool:
        """The pool that holds the block's memory."""
        return self._pool

    @property
    def freed(self) -> bool:
        """Whether `free` was called."""
        return self._freed

    def extend(self, other: CacheBlock) -> None:
        """Appends all tokens of `other` (a commit): keys are rotated by len(self), values copied.

        Args:
            other: A block of the same model; it stays as it is (`clear` it to move the tokens).

        Raises:
            InvalidBlockError: One of the blocks is freed, or they belong to different models.
            OutOfCacheMemoryError: The pool is full; both blocks are unchanged.
        """
        require_usable(self._pool, self, other)
        start, count = len(self), len(other)
        if not count:
            return
        with self._pool.growing([(self, count)]), torch.no_grad():
            self._pool.move(other.slots(0, count), self.slots(start, start + count), start)
        self.advance(count)

    def fork(self) -> CacheBlock:
        """A twin with the same tokens. They share memory until one of them writes.

        Raises:
            InvalidBlockError: The block is freed.
        """
        require_usable(self._pool, self)
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
        require_usable(self._pool, self)
        if length < 0:
            raise InvalidBlockError(f"Cannot shorten {self!r} to {length} tokens.")
        self._pool.release(self.shorten(length))

    def free(self) -> None:
        """Gives the block's memory back for good. Freeing it again does nothing."""
        if self._freed:
            return
        self.truncate(0)
        self._freed = True
        self._pool.trim()

    def keys(self, layer: int) -> Tensor:
        """A copy of a layer's keys, rotated to block-local positions: [kv_heads, len, key_dim].

        Raises:
            InvalidBlockError: The block is freed.
        """
        return self._read(self._pool.keys[layer])

    def values(self, layer: int) -> Tensor:
        """A copy of a layer's values: [kv_heads, len, value_dim].

        Raises:
            InvalidBlockError: The block is freed.
        """
        return self._read(self._pool.values[layer])

    def _read(self, storage: Tensor) -> Tensor:
        require_usable(self._pool, self)
        return storage.index_select(1, self._pool.tensor(self.slots(0, len(self))))


def require_usable(pool: CachePool, *blocks: CacheBlock) -> None:
    """Raises InvalidBlockError unless every block is from this pool, and not freed."""
    for block in blocks:
        if block.pool is not pool:
            raise InvalidBlockError(
                f"{block!r} belongs to another model; use blocks of this model's new_block()."
            )
        if block.freed:
            raise InvalidBlockError(
                f"{block!r} was used after free(); call clear() instead of free() to reuse one."
            )
