"""The memory pool behind all blocks of a model.

It keeps extents long: a block grows into the page that follows its last one, and a new extent
begins in the middle of the largest gap, where both it and its neighbour have room to grow.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.cache.blocks import PAGE, CacheBlock, Extent, Slots
from hogwild_agents.engine.layers import Layer
from hogwild_agents.errors import InvalidBlockError, OutOfCacheMemoryError

ALIGNMENT = 64
"""Of storage, in bytes: a cache line, as torch itself aligns."""


class CachePool:
    """Keys and values of all blocks of one model, up to a limit in bytes.

    Storage is one tensor [kv_heads, slots, dim] per layer for keys and one for values. It doubles
    when it is full, layer by layer, so that a copy is rare and needs little extra memory.

    Args:
        layers: The model's attention layers.
        dtype: Of keys and values.
        device: Where they lie.
        limit_bytes: The most that keys and values may take.
    """

    def __init__(
        self, layers: Sequence[Layer], dtype: torch.dtype, device: torch.device, limit_bytes: int
    ) -> None:
        self.layers = tuple(layers)
        self.device = device
        self.limit_bytes = limit_bytes
        self.bytes_per_token = bytes_per_token(layers, dtype)
        self.dtype = dtype
        self.keys = [self._zeros(layer.kv_heads, 0, layer.key_dim) for layer in layers]
        """Per layer: [kv_heads, slots, key_dim]."""
        self.values = [self._zeros(layer.kv_heads, 0, layer.value_dim) for layer in layers]
        """Per layer: [kv_heads, slots, value_dim]."""
        self.key_bytes_per_layer = max(1, self.bytes_per_token // (2 * len(layers)))
        """Of one token's keys in one layer, on average."""
        self.most_heads = max(layer.heads for layer in layers)
        self._owners = np.zeros(0, np.int32)  # per page: how many blocks hold it
        self._abandoned: deque[list[Extent]] = deque()

    @property
    def limit_pages(self) -> int:
        """The most pages that fit under the limit."""
        return self.limit_bytes // (self.bytes_per_token * PAGE)

    @property
    def used_pages(self) -> int:
        """Pages held by blocks, a shared page counted once."""
        self._collect()
        return int(np.count_nonzero(self._owners))

    @property
    def free_pages(self) -> int:
        """Pages that blocks may still take."""
        return self.limit_pages - self.used_pages

    @property
    def used_bytes(self) -> int:
        """Bytes held by blocks, in whole pages, shared memory counted once."""
        return self.used_pages * PAGE * self.bytes_per_token

    def storage(self) -> Iterable[tuple[Layer, Tensor, Tensor]]:
        """Each layer with its keys and values."""
        return zip(self.layers, self.keys, self.values, strict=True)

    def tensor(self, slots: Slots) -> Tensor:
        """Integers as an int64 tensor on the pool's device, which nobody waits for."""
        return torch.from_numpy(slots).to(self.device, non_blocking=True)

    def require(self, *blocks: CacheBlock) -> None:
        """Raises InvalidBlockError unless every block is alive and from this pool."""
        for block in blocks:
            if block.pool is not self:
                raise InvalidBlockError(
                    f"{block!r} belongs to another model; use blocks of this model's new_block()."
                )
            if block.freed:
                raise InvalidBlockError(
                    f"{block!r} was used after free(); call clear() instead of free() to reuse one."
                )

    def pages_needed(self, wanted: Sequence[tuple[CacheBlock, int]]) -> int:
        """Free pages that `reserve` would take: new ones, and copies of what twins share."""
        self._collect()
        copied = Counter(
            block.last_page for block, count in wanted if count and len(block) % PAGE
        )  # of the twins that share a page, the last one to write may keep it
        return sum(_new_pages(block, count) for block, count in wanted) + sum(
            min(writers, int(self._owners[page]) - 1) for page, writers in copied.items()
        )

    def reserve(self, wanted: Sequence[tuple[CacheBlock, int]]) -> None:
        """Makes room for `count` more tokens at the end of each block, or changes nothing.

        Raises:
            OutOfCacheMemoryError: They do not fit under the limit, or the device is full.
        """
        total = self.pages_needed(wanted)
        if not total:
            return
        used = self.used_pages
        if used + total > self.limit_pages:
            page_mib = PAGE * self.bytes_per_token / 2**20
            tokens = sum(count for _, count in wanted)
            raise OutOfCacheMemoryError(
                f"No room for {tokens} more tokens: they need {total} pages of {page_mib:.3g} MiB, "
                f"and {self.limit_pages - used} of {self.limit_pages} are free. Free or clear "
                "blocks, or load the model with a larger cache_bytes."
            )
        if used + total > len(self._owners):
            self._grow(min(2 * (used + total), self.limit_pages))
        for block, count in wanted:
            if count and len(block) % PAGE and self._owners[block.last_page] > 1:
                self._copy_last_page(block)
            if new := _new_pages(block, count):
                self._append_pages(block.extents, new)

    def allocate(self, count: int) -> list[Extent]:
        """Takes `count` pages that the caller owns until it releases them.

        Raises:
            OutOfCacheMemoryError: They do not fit under the limit, or the device is full.
        """
        used = self.used_pages
        if used + count > self.limit_pages:
            raise OutOfCacheMemoryError(
                f"No room for {count} pages: {self.limit_pages - used} of {self.limit_pages} are "
                "free. Free or clear blocks, or load the model with a larger cache_bytes."
            )
        if used + count > len(self._owners):
            self._grow(min(2 * (used + count), self.limit_pages))
        extents: list[Extent] = []
        self._append_pages(extents, count)
        return extents

    @contextmanager
    def growing(self, wanted: Sequence[tuple[CacheBlock, int]]) -> Iterator[None]:
        """Reserves room for a piece of work; should the work fail, its blocks are as before.

        Raises:
            OutOfCacheMemoryError: As `reserve`.
        """
        lengths = [len(block) for block, _ in wanted]
        self.reserve(wanted)
        try:
            yield
        except BaseException:
            for (block, count), length in zip(wanted, lengths, strict=True):
                self.erase(block.slots(length, length + count))
                block.truncate(length)
            raise

    def owners(self, pages: Sequence[int]) -> list[int]:
        """How many blocks hold each of these pages."""
        self._collect()
        owners: list[int] = self._owners[list(pages)].tolist()
        return owners

    def share(self, extents: Iterable[Extent]) -> None:
        """Counts one more owner for every page of `extents`."""
        for extent in extents:
            self._owners[extent.first : extent.first + extent.count] += 1

    def release(self, extents: Iterable[Extent]) -> None:
        """Counts one owner less for every page of `extents`."""
        for extent in extents:
            self._owners[extent.first : extent.first + extent.count] -= 1

    def abandon(self, extents: list[Extent]) -> None:
        """Takes back the pages of a block that nobody refers to any more, at the next reserve."""
        self._abandoned.append(extents)

    def trim(self) -> None:
        """Returns the storage to the system once no block holds a page."""
        if len(self._owners) and not self.used_pages:
            self._owners = self._owners[:0]
            for storage in (self.keys, self.values):
                storage[:] = [self._zeros(old.shape[0], 0, old.shape[2]) for old in storage]

    def put(self, storage: Tensor, slots: Tensor, states: Tensor) -> None:
        """Writes `states` [kv_heads, tokens, dim] to `slots` of a layer's keys or values."""
        _raw(storage).index_copy_(1, slots, _raw(states.to(storage.dtype)))

    def move(self, source: Slots, target: Slots, shift: int) -> None:
        """Copies tokens to other slots, keys turned on by `shift` positions; a commit.

        Args:
            source: [tokens], where they lie.
            target: [tokens], where they go; none of these is among the sources.
            shift: In positions.
        """
        old, new = self.tensor(source), self.tensor(target)
        for layer, keys, values in self.storage():
            turned = layer.rotation.rotate(keys.index_select(1, old), shift)
            self.put(keys, new, turned)
            self.put(values, new, values.index_select(1, old))

    def erase(self, slots: Slots) -> None:
        """Zeroes what a failed pass wrote: a NaN left there would spoil the page's next owner."""
        where = self.tensor(slots)
        with torch.no_grad():
            for _, keys, values in self.storage():
                for kept in (keys, values):
                    _raw(kept).index_fill_(1, where, 0)

    def _collect(self) -> None:
        while self._abandoned:
            self.release(self._abandoned.popleft())

    def _grow(self, pages: int) -> None:
        try:
            with torch.inference_mode(False), torch.no_grad():
                for storage in (self.keys, self.values):
                    for index, old in enumerate(storage):
                        if old.shape[1] >= pages * PAGE:
                            continue  # grown already by an attempt that failed half-way
                        new = self._zeros(old.shape[0], pages * PAGE, old.shape[2])
                        new[:, : old.shape[1]] = old
                        storage[index] = new
        except (RuntimeError, MemoryError) as error:  # torch's CPU allocator raises RuntimeError
            raise OutOfCacheMemoryError(
                f"The device has no memory left for a cache of {pages} pages "
                f"({pages * PAGE * self.bytes_per_token / 2**30:.2f} GiB): {error}. Free blocks, "
                "or load the model with a smaller cache_bytes so that this is found out early."
            ) from error
        self._owners = np.concatenate([self._owners, np.zeros(pages - len(self._owners), np.int32)])

    def _zeros(self, *shape: int) -> Tensor:
        """Zeroes, of which a CPU needs memory only where they are written."""
        if self.device.type != "cpu":
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        size = math.prod(shape) * self.dtype.itemsize
        raw = torch.from_numpy(np.zeros(size + ALIGNMENT, np.uint8))  # calloc: not touched yet
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + size].view(self.dtype).view(shape)

    def _copy_last_page(self, block: CacheBlock) -> None:
        """Gives a block its own copy of a page that it shares with a twin."""
        last, old = block.extents[-1], block.last_page
        last.count -= 1
        if not last.count:
            block.extents.pop()
        self._append_pages(block.extents, 1)
        new = block.last_page
        with torch.no_grad():
            for _, keys, values in self.storage():
                for kept in (keys, values):
                    kept[:, new * PAGE : (new + 1) * PAGE] = kept[:, old * PAGE : (old + 1) * PAGE]
        self.release([Extent(old, 1)])

    def _append_pages(self, extents: list[Extent], count: int) -> None:
        """Takes `count` free pages, which must exist, preferring those that follow the last one."""
        if extents:
            last = extents[-1]
            after = last.first + last.count
            taken = self._owners[after : after + count]
            room = int(np.argmax(taken > 0)) if (taken > 0).any() else len(taken)
            self.share([Extent(after, room)])
            last.count += room
            count -= room
        while count:
            first, length = self._largest_gap()
            room = min(count, length)
            if first:
                first += (length - room) // 2
            extents.append(Extent(first, room))
            self.share([extents[-1]])
            count -= room

    def _largest_gap(self) -> tuple[int, int]:
        taken = np.concatenate([[True], self._owners > 0, [True]])
        starts = np.flatnonzero(taken[:-1] & ~taken[1:])
        stops = np.flatnonzero(~taken[:-1] & taken[1:])
        widest = int(np.argmax(stops - starts))
        return int(starts[widest]), int(stops[widest] - starts[widest])


def bytes_per_token(layers: Sequence[Layer], dtype: torch.dtype) -> int:
    """Memory that one token takes in a cache of all these layers."""
    numbers = sum(layer.kv_heads * (layer.key_dim + layer.value_dim) for layer in layers)
    return dtype.itemsize * numbers


def _raw(kept: Tensor) -> Tensor:
    """The same memory in a type that torch can index: it lacks that for one-byte floats."""
    return kept.view(torch.uint8) if kept.dtype.itemsize == 1 else kept


def _new_pages(block: CacheBlock, count: int) -> int:
    """Pages that `count` more tokens add to a block."""
    return -(-(len(block) + count) // PAGE) - -(-len(block) // PAGE)
