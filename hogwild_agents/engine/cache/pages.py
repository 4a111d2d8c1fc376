"""Pages: the unit in which the cache hands out memory, and the tables that say who holds which.

A table keeps its pages as *extents*, stretches of neighbouring pages, because attention reads a
stretch in place, without copying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PAGE = 32
"""Tokens per page."""

Ints = npt.NDArray[np.int64]
"""Ints or token ids. A slot is the place of a token in the cache, `page * PAGE + offset`."""


@dataclass(slots=True)
class Extent:
    """`count` neighbouring pages, the first of which is page `first` of the pool."""

    first: int
    count: int


class PageTable:
    """The pages of a growing run of tokens, in order; `CachePool` hands them out."""

    __slots__ = ("_extents", "_length")

    def __init__(self) -> None:
        self._extents: list[Extent] = []
        self._length = 0

    def __len__(self) -> int:
        """Number of tokens."""
        return self._length

    def __bool__(self) -> bool:
        """True, even without tokens."""
        return True

    @property
    def extents(self) -> list[Extent]:
        """The pages in order. Only the pool may change the list."""
        return self._extents

    @property
    def last_page(self) -> int:
        """The page of the last token; the table must not be empty."""
        return self._extents[-1].first + self._extents[-1].count - 1

    def slots(self, start: int, stop: int) -> Ints:
        """Where the tokens start..stop are stored: int64 [stop - start]."""
        parts = []
        base = 0
        for extent in self._extents:
            end = base + extent.count * PAGE
            if start < end and stop > base:
                shift = extent.first * PAGE - base
                parts.append(np.arange(max(start, base) + shift, min(stop, end) + shift))
            base = end
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])

    def new_pages(self, count: int) -> int:
        """How many pages `count` more tokens add."""
        return pages_for(self._length + count) - pages_for(self._length)

    def advance(self, count: int) -> None:
        """Counts `count` more tokens, which have been written to reserved pages."""
        self._length += count

    def shorten(self, length: int) -> list[Extent]:
        """Drops the tokens from position `length` on; returns the pages that held only those."""
        self._length = min(self._length, length)
        surplus = sum(extent.count for extent in self._extents) - pages_for(self._length)
        dropped = []
        while surplus > 0:
            last = self._extents[-1]
            count = min(surplus, last.count)
            last.count -= count
            surplus -= count
            dropped.append(Extent(last.first + last.count, count))
            if not last.count:
                self._extents.pop()
        return dropped


def pages_for(tokens: int) -> int:
    """How many pages `tokens` tokens take."""
    return -(-tokens // PAGE)


def pages_of(extents: Iterable[Extent]) -> list[int]:
    """The page numbers of `extents`, in order."""
    return [page for e in extents for page in range(e.first, e.first + e.count)]


def extents_of(pages: Iterable[int]) -> list[Extent]:
    """The inverse of `pages_of`: neighbouring pages become one extent."""
    extents: list[Extent] = []
    for page in pages:
        if extents and page == extents[-1].first + extents[-1].count:
            extents[-1].count += 1
        else:
            extents.append(Extent(page, 1))
    return extents


def slots_of(pages: Sequence[int]) -> Ints:
    """Every slot of these pages: int64 [pages * PAGE]."""
    return (np.array(pages, np.int64)[:, None] * PAGE + np.arange(PAGE)).reshape(-1)
