"""Moves blocks out of the cache and back, so that a session can make room for older ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hogwild_agents.engine.cache.blocks import CacheBlock, Extent, pages_of, slots_of
from hogwild_agents.errors import OutOfCacheMemoryError


class OffloadedBlocks:
    """The contents of blocks, kept in host memory while the blocks stand empty.

    Pages that several of the blocks share are kept once, and are shared again afterwards.

    Args:
        blocks: Blocks of one pool, at least one. They are emptied.
    """

    def __init__(self, blocks: Sequence[CacheBlock]) -> None:
        self._blocks = [
            (block, len(block), pages_of(block.extents)) for block in blocks if not block.freed
        ]
        pages = [page for _, _, held in self._blocks for page in held]
        self._order = list(dict.fromkeys(pages))
        pool = self._pool = blocks[0].pool
        where = pool.tensor(slots_of(self._order))
        self._contents: list[tuple[Tensor, Tensor]] = [
            (_to_host(keys.index_select(1, where)), _to_host(values.index_select(1, where)))
            for _, keys, values in pool.storage()
        ]
        for block, _, _ in self._blocks:
            block.clear()

    @property
    def pages(self) -> int:
        """Pages that `restore` takes."""
        return len(self._order)

    def restore(self) -> None:
        """Fills the blocks again with exactly what they held.

        Raises:
            OutOfCacheMemoryError: There is no room for them; nothing has changed.
        """
        pool = self._pool
        fresh = pool.allocate(self.pages)
        places = pages_of(fresh)
        try:
            self._copy_to(places)
        except (RuntimeError, MemoryError) as error:  # torch's CPU allocator raises RuntimeError
            pool.release(fresh)
            raise OutOfCacheMemoryError(
                f"The device has no memory left to bring {self.pages} pages back: {error}"
            ) from error
        moved = dict(zip(self._order, places, strict=True))
        for block, length, held in self._blocks:
            block.extents.extend(_extents([moved[page] for page in held]))
            pool.share(block.extents)
            block.advance(length)
        pool.release(fresh)

    def _copy_to(self, places: Sequence[int]) -> None:
        pool = self._pool
        where = pool.tensor(slots_of(places))
        for (_, keys, values), (kept_keys, kept_values) in zip(
            pool.storage(), self._contents, strict=True
        ):
            for storage, kept in ((keys, kept_keys), (values, kept_values)):
                pool.put(storage, where, kept.to(pool.device, non_blocking=True))


def _to_host(kept: Tensor) -> Tensor:
    """A copy in host memory: pinned, and under way while others compute, if it comes from a GPU."""
    if kept.device.type != "cuda":
        return kept.cpu()
    host = torch.empty(kept.shape, dtype=kept.dtype, pin_memory=True)
    return host.copy_(kept, non_blocking=True)  # read by later work of the same stream only


def _extents(pages: Sequence[int]) -> list[Extent]:
    """Neighbouring pages as stretches."""
    extents: list[Extent] = []
    for page in pages:
        if extents and page == extents[-1].first + extents[-1].count:
            extents[-1].count += 1
        else:
            extents.append(Extent(page, 1))
    return extents
