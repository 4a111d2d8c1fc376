"""The prefix cache: prompts stay in memory, so that prompts that begin alike are read faster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE, Ints, pages_for, pages_of
from hogwild_agents.engine.cache.pool import CachePool

MAX_ENTRIES = 256
"""The most prompts in a cache: every new prompt is compared with all of them."""


@dataclass(slots=True, eq=False)
class _Entry:
    tokens: Ints
    block: CacheBlock


class PrefixCache:
    """The most recently used prompts, up to a number of pages.

    Prompts that share a beginning share its pages, and so do a prompt and the sessions on it: an
    entry costs only the pages that no other block holds.

    Args:
        pool: The memory of the blocks.
        limit_pages: The most pages that all entries may hold together.
    """

    def __init__(self, pool: CachePool, limit_pages: int) -> None:
        self._pool = pool
        self.limit_pages = limit_pages
        self._entries: list[_Entry] = []  # the least recently used first

    def __len__(self) -> int:
        """Number of prompts in the cache."""
        return len(self._entries)

    @property
    def pages(self) -> int:
        """Number of pages held. A shared page counts once."""
        return len(self._holders())

    @property
    def evictable_pages(self) -> int:
        """Number of pages that would be free if all prompts were evicted."""
        holders = self._holders()
        owners = self._pool.owners([*holders])
        return sum(own == held for own, held in zip(owners, holders.values(), strict=True))

    def _holders(self) -> Counter[int]:
        """For each page held, the number of entries that hold it."""
        return Counter(page for entry in self._entries for page in pages_of(entry.block.extents))

    def accepts(self, tokens: Ints) -> bool:
        """Whether `put` would store this prompt: it has no more pages than the cache may hold."""
        return pages_for(len(tokens)) <= self.limit_pages

    def match(self, tokens: Ints) -> int:
        """How many of the first `tokens` some entry holds."""
        return max((common_length(entry.tokens, tokens) for entry in self._entries), default=0)

    def take(self, tokens: Ints) -> tuple[CacheBlock, int] | None:
        """The longest cached beginning of `tokens`, at least a page: a fork, and its length."""
        best = max(
            self._entries, key=lambda entry: common_length(entry.tokens, tokens), default=None
        )
        # At least one token is left to be read: its logits are needed.
        length = 0 if best is None else min(common_length(best.tokens, tokens), len(tokens) - 1)
        if best is None or length < PAGE:
            return None
        self._entries.remove(best)
        self._entries.append(best)
        twin = best.block.fork()
        twin.truncate(length)
        return twin, length

    def put(self, tokens: Ints, block: CacheBlock) -> None:
        """Stores a fork of `block`, which holds exactly `tokens`.

        Prompts that are a beginning of `tokens` are dropped: the new entry matches as much.
        """
        if not self.accepts(tokens):
            return
        for entry in [*self._entries]:
            if common_length(entry.tokens, tokens) == len(entry.tokens):
                self._drop(entry)
        self._entries.append(_Entry(tokens, block.fork()))
        while self.pages > self.limit_pages or len(self) > MAX_ENTRIES:
            self.evict()

    def evict(self) -> bool:
        """Evicts the least recently used prompt; False if there is none."""
        if self._entries:
            self._drop(self._entries[0])
            return True
        return False

    def clear(self) -> None:
        """Evicts all prompts."""
        while self.evict():
            pass

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        entry.block.free()


def common_length(first: Ints, second: Ints) -> int:
    """Length of the longest common beginning of two arrays of token ids."""
    shorter = min(len(first), len(second))
    unlike = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(unlike[0]) if len(unlike) else shorter
