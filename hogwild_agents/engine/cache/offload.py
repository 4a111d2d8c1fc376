"""Offloading: moves blocks to host memory and back, so that a session can make room for others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import extents_of, pages_of, slots_of
from hogwild_agents.errors import OutOfCacheMemoryError


class OffloadedBlocks:
    """The contents of blocks in host memory, while the blocks themselves are empty.

    Pages that several of the blocks share are stored once, and are shared again after `restore`.

    Args:
        blocks: Blocks of one pool, at least one. They are emptied.
    """

    def __init__(self, blocks: Sequence[CacheBlock]) -> None:
        self._blocks = [
            (block, len(block), pages_of(block.extents)) for block in blocks if not block.freed
        ]
        self._pages = list(dict.fromkeys(page for *_, pages in self._blocks for page in pages))
        pool = self._pool = blocks[0].pool
        slots = pool.tensor(slots_of(self._pages))
        self._contents: list[tuple[Tensor, Tensor]] = [
            (_to_host(keys.index_select(1, slots)), _to_host(values.index_select(1, slots)))
            for _, keys, values in pool.storage()
        ]
        for block, *_ in self._blocks:
            block.clear()

    @property
    def pages(self) -> int:
        """Number of pages that `restore` takes."""
        return len(self._pages)

    def restore(self) -> None:
        """Fills the blocks again with exactly what they held.

        Raises:
            OutOfCacheMemoryError: There is no room for them; nothing has changed.
        """
        pool = self._pool
        extents = pool.allocate(self.pages)
        pages = pages_of(extents)
        try:
            self._copy_to(pages)
        except (RuntimeError, MemoryError) as error:  # torch's CPU allocator raises RuntimeError
            pool.release(extents)
            raise OutOfCacheMemoryError(
                f"The device has no memory left to restore {self.pages} pages: {error}"
            ) from error
        new_page = dict(zip(self._pages, pages, strict=True))
        for block, length, old_pages in self._blocks:
            block.extents.extend(extents_of(new_page[page] for page in old_pages))
            pool.share(block.extents)
            block.advance(length)
        pool.release(extents)

    def _copy_to(self, pages: Sequence[int]) -> None:
        pool = self._pool
        slots = pool.tensor(slots_of(pages))
        for (_, keys, values), saved in zip(pool.storage(), self._contents, strict=True):
            for storage, states in zip((keys, values), saved, strict=True):
                pool.put(storage, slots, states.to(pool.device, non_blocking=True))


def _to_host(states: Tensor) -> Tensor:
    """A copy in host memory. From a GPU the copy is pinned, and may still be under way."""
    if states.device.type != "cuda":
        return states.cpu()
    host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
    return host.copy_(states, non_blocking=True)  # read by later work of the same stream only
