"""The memory pool behind all blocks of a model.

It keeps extents long: a block grows into the page that follows its last one, and a new extent
begins in the middle of the largest gap, where both it and its neighbour have room to grow.

The pool knows a block only as a `PageTable`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.cache.pages import PAGE, Extent, Ints, PageTable
from hogwild_agents.engine.layers import Layer
from hogwild_agents.errors import OutOfCacheMemoryError

ALIGNMENT = 64
"""Alignment of storage in bytes: a cache line, as torch itself aligns."""

Growth = Sequence[tuple[PageTable, int]]
"""By how many tokens each block is to grow."""


class CachePool:
    """Keys and values of all blocks of one model, up to a limit in bytes.

    Storage is one tensor [kv_heads, slots, dim] per layer for keys and one for values. It doubles
    when it is full, layer by layer, so that a copy is rare and needs little extra memory.

    Args:
        layers: The model's attention layers.
        dtype: The dtype of keys and values.
        device: The device that holds them.
        limit_bytes: The most memory that keys and values may take.
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
        """Bytes of one token's keys in one layer, on average."""
        self.max_heads = max(layer.heads for layer in layers)
        self._owners = np.zeros(0, np.int32)  # number of blocks that hold each page
        self._abandoned: deque[list[Extent]] = deque()

    @property
    def limit_pages(self) -> int:
        """The most pages that fit under the limit."""
        return self.limit_bytes // (self.bytes_per_token * PAGE)

    @property
    def used_pages(self) -> int:
        """Pages held by blocks. A shared page counts once."""
        self._collect()
        return int(np.count_nonzero(self._owners))

    @property
    def free_pages(self) -> int:
        """Pages that blocks may still take."""
        return self.limit_pages - self.used_pages

    @property
    def used_bytes(self) -> int:
        """Bytes held by blocks, in whole pages. A shared page counts once."""
        return self.used_pages * PAGE * self.bytes_per_token

    def storage(self) -> Iterable[tuple[Layer, Tensor, Tensor]]:
        """Each layer with its keys and values."""
        return zip(self.layers, self.keys, self.values, strict=True)

    def tensor(self, slots: Ints) -> Tensor:
        """int64 numbers as a tensor on the pool's device; does not wait for the copy."""
        return torch.from_numpy(slots).to(self.device, non_blocking=True)

    def pages_needed(self, growth: Growth) -> int:
        """Free pages that `reserve` would take: new ones, and copies of shared last pages."""
        self._collect()
        copied = Counter(
            table.last_page for table, count in growth if count and len(table) % PAGE
        )  # of the blocks that share a page, the last one to write may keep it
        return sum(table.new_pages(count) for table, count in growth) + sum(
            min(writers, int(self._owners[page]) - 1) for page, writers in copied.items()
        )

    def reserve(self, growth: Growth) -> None:
        """Makes room for more tokens at the end of each block, or changes nothing.

        Raises:
            OutOfCacheMemoryError: They do not fit under the limit, or the device is full.
        """
        if not (pages := self.pages_needed(growth)):
            return
        self._require_free(pages, f"{sum(count for _, count in growth)} more tokens")
        for table, count in growth:
            if count and len(table) % PAGE and self._owners[table.last_page] > 1:
                self._copy_last_page(table)
            if new := table.new_pages(count):
                self._append_pages(table.extents, new)

    def allocate(self, pages: int) -> list[Extent]:
        """Takes pages that the caller owns until it releases them.

        Raises:
            OutOfCacheMemoryError: They do not fit under the limit, or the device is full.
        """
        self._require_free(pages, "the blocks of a session")
        extents: list[Extent] = []
        self._append_pages(extents, pages)
        return extents

    @contextmanager
    def growing(self, growth: Growth) -> Iterator[None]:
        """Reserves room for a `with` block. If that block raises, all tables are as before.

        Raises:
            OutOfCacheMemoryError: As `reserve`.
        """
        lengths = [len(table) for table, _ in growth]
        self.reserve(growth)
        try:
            yield
        except BaseException:
            for (table, count), length in zip(growth, lengths, strict=True):
                self.erase(table.slots(length, length + count))
                self.release(table.shorten(length))
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
        """Queues the pages of a garbage-collected block; they are released before the next use."""
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

    def move(self, source: Ints, target: Ints, shift: int) -> None:
        """Copies tokens to other slots and rotates their keys by `shift` positions; a commit.

        Args:
            source: [tokens], the slots to read.
            target: [tokens], the slots to write; none of them is among the sources.
            shift: Number of positions.
        """
        old, new = self.tensor(source), self.tensor(target)
        for layer, keys, values in self.storage():
            self.put(keys, new, layer.rotation.rotate(keys.index_select(1, old), shift))
            self.put(values, new, values.index_select(1, old))

    def erase(self, slots: Ints) -> None:
        """Zeroes what a failed pass wrote: a NaN left there would spoil the page's next owner."""
        where = self.tensor(slots)
        with torch.no_grad():
            for _, keys, values in self.storage():
                for storage in (keys, values):
                    _raw(storage).index_fill_(1, where, 0)

    def _collect(self) -> None:
        while self._abandoned:
            self.release(self._abandoned.popleft())

    def _require_free(self, pages: int, purpose: str) -> None:
        """Makes sure that so many pages are free and have storage.

        Raises:
            OutOfCacheMemoryError: They do not fit under the limit, or the device is full.
        """
        used = self.used_pages
        if used + pages > self.limit_pages:
            page_mib = PAGE * self.bytes_per_token / 2**20
            raise OutOfCacheMemoryError(
                f"No room for {purpose}: they need {pages} pages of {page_mib:.3g} MiB, and "
                f"{self.limit_pages - used} of {self.limit_pages} are free. Free or clear blocks, "
                "or load the model with a larger cache_bytes."
            )
        if used + pages > len(self._owners):
            self._grow(min(2 * (used + pages), self.limit_pages))

    def _grow(self, pages: int) -> None:
        """Extends the storage to `pages` pages."""
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
                "or load the model with a smaller cache_bytes."
            ) from error
        self._owners = np.concatenate([self._owners, np.zeros(pages - len(self._owners), np.int32)])

    def _zeros(self, *shape: int) -> Tensor:
        """Zeros. On a CPU they take memory only where they are written."""
        if self.device.type != "cpu":
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        size = math.prod(shape) * self.dtype.itemsize
        raw = torch.from_numpy(np.zeros(size + ALIGNMENT, np.uint8))  # calloc: not touched yet
        start = -raw.data_ptr() % ALIGNMENT
        return raw[start : start + size].view(self.dtype).view(shape)

    def _copy_last_page(self, table: PageTable) -> None:
        """Gives a block its own copy of the page that it shares with a twin."""
        last, old = table.extents[-1], table.last_page
        last.count -= 1
        if not last.count:
            table.extents.pop()
        self._append_pages(table.extents, 1)
        source, target = (slice(p * PAGE, (p + 1) * PAGE) for p in (old, table.last_page))
        with torch.no_grad():
            for _, keys, values in self.storage():
                for storage in (keys, values):
                    storage[:, target] = storage[:, source]
        self.release([Extent(old, 1)])

    def _append_pages(self, extents: list[Extent], count: int) -> None:
        """Takes `count` free pages, if possible those that follow the last one; they must exist."""
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
    """Bytes that one token takes in a cache of all these layers."""
    numbers = sum(layer.kv_heads * (layer.key_dim + layer.value_dim) for layer in layers)
    return dtype.itemsize * numbers


def _raw(storage: Tensor) -> Tensor:
    """The same memory in a dtype that torch can index; it cannot index one-byte floats."""
    return storage.view(torch.uint8) if storage.dtype.itemsize == 1 else storage
