"""Prompts kept in the cache, so that the next one that begins alike need not be computed again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hogwild_agents.engine.cache.blocks import PAGE, CacheBlock, Slots, pages_of
from hogwild_agents.engine.cache.pool import CachePool

MOST_ENTRIES = 256
"""Prompts that are kept at most: all are looked at whenever one arrives."""


@dataclass(slots=True, eq=False)
class _Entry:
    tokens: Slots
    block: CacheBlock


class PrefixCache:
    """The most recently used prompts, up to a number of pages.

    Prompts that share a beginning share its pages, and so do a prompt and the sessions on it: an
    entry costs only what no other block holds.

    Args:
        pool: The cache.
        limit_pages: The most pages that all entries may hold together.
    """

    def __init__(self, pool: CachePool, limit_pages: int) -> None:
        self._pool = pool
        self.limit_pages = limit_pages
        self._entries: list[_Entry] = []  # the least recently used first

    def __len__(self) -> int:
        """Prompts in the store."""
        return len(self._entries)

    @property
    def pages(self) -> int:
        """Pages held, a shared one counted once."""
        return len(self._holders())

    @property
    def spare_pages(self) -> int:
        """Pages that would be free if all were forgotten: those that nobody else holds."""
        holders = self._holders()
        owners = self._pool.owners([*holders])
        return sum(own == held for own, held in zip(owners, holders.values(), strict=True))

    def _holders(self) -> Counter[int]:
        """For each page held, by how many entries."""
        return Counter(page for entry in self._entries for page in pages_of(entry.block.extents))

    def keeps(self, tokens: Slots) -> bool:
        """Whether `put` would keep these tokens."""
        return -(-len(tokens) // PAGE) <= self.limit_pages

    def match(self, tokens: Slots) -> int:
        """How many of the first `tokens` some entry holds."""
        return max((common_length(entry.tokens, tokens) for entry in self._entries), default=0)

    def take(self, tokens: Slots) -> tuple[CacheBlock, int] | None:
        """A fork of the longest beginning of `tokens` held, at least a page, and its length."""
        best = max(
            self._entries, key=lambda entry: common_length(entry.tokens, tokens), default=None
        )
        # One token at least is left to be read, so that a prompt is never read by nobody.
        length = 0 if best is None else min(common_length(best.tokens, tokens), len(tokens) - 1)
        if best is None or length < PAGE:
            return None
        self._entries.remove(best)
        self._entries.append(best)
        twin = best.block.fork()
        twin.truncate(length)
        return twin, length

    def put(self, tokens: Slots, block: CacheBlock) -> None:
        """Keeps a fork of `block`, which holds just `tokens`; forgets what that makes needless."""
        if not self.keeps(tokens):
            return
        for entry in [*self._entries]:
            if common_length(entry.tokens, tokens) == len(entry.tokens):
                self._drop(entry)
        self._entries.append(_Entry(tokens, block.fork()))
        while self.pages > self.limit_pages or len(self) > MOST_ENTRIES:
            self.evict()

    def evict(self) -> bool:
        """Forgets the least recently used prompt; False if there is none."""
        if self._entries:
            self._drop(self._entries[0])
            return True
        return False

    def clear(self) -> None:
        """Forgets all."""
        while self.evict():
            pass

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        entry.block.free()


def common_length(one: Slots, other: Slots) -> int:
    """Length of the longest common beginning of two arrays of ids."""
    shorter = min(len(one), len(other))
    unlike = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(unlike[0]) if len(unlike) else shorter
