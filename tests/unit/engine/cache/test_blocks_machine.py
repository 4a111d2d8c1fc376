"""Random use of a small pool against plain lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import OutOfCacheMemoryError
from tests.unit.engine.cache.pools import check_contents, fill, make_pool, pages_of, write


@dataclass
class Twin:
    """A block and what it should hold."""

    block: CacheBlock
    tokens: list[int]


class PoolMachine(RuleBasedStateMachine):
    """Random use of a small pool against plain lists."""

    PAGES = 12

    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool(self.PAGES)
        self.twins: list[Twin] = []
        self.next_token = 0

    def pick(self, number: int) -> Twin:
        """Any of the twins."""
        return self.twins[number % len(self.twins)]

    @rule()
    def new(self) -> None:
        """An empty block."""
        self.twins.append(Twin(CacheBlock(self.pool), []))

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99), count=st.sampled_from([1, 2, 3, PAGE - 1, PAGE, PAGE + 1, 70]))
    def append(self, number: int, count: int) -> None:
        """Tokens at the end of a block, or nothing at all if they do not fit."""
        twin = self.pick(number)
        tokens = list(range(self.next_token, self.next_token + count))
        self.next_token += count
        try:
            write(twin.block, tokens)
        except OutOfCacheMemoryError:
            assert self.pages_needed(twin, count) > self.PAGES - self.pool.used_pages
            return
        twin.tokens = twin.tokens + tokens

    @precondition(lambda self: self.twins)
    @rule(numbers=st.lists(st.integers(0, 99), min_size=2, max_size=4), count=st.integers(1, 40))
    def append_together(self, numbers: list[int], count: int) -> None:
        """As in one pass: room for all, or for none."""
        twins = list({id(twin): twin for twin in map(self.pick, numbers)}.values())
        used, pages = self.pool.used_pages, [pages_of(twin.block) for twin in twins]
        try:
            self.pool.reserve([(twin.block, count) for twin in twins])
        except OutOfCacheMemoryError:
            assert self.pool.used_pages == used
            assert [pages_of(twin.block) for twin in twins] == pages
            return
        for twin in twins:
            tokens = list(range(self.next_token, self.next_token + count))
            self.next_token += count
            fill(twin.block, tokens)
            twin.tokens = twin.tokens + tokens

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99), other=st.integers(0, 99))
    def extend(self, number: int, other: int) -> None:
        """A commit."""
        target, source = self.pick(number), self.pick(other)
        try:
            target.block.extend(source.block)
        except OutOfCacheMemoryError:
            needed = self.pages_needed(target, len(source.tokens))
            assert needed > self.PAGES - self.pool.used_pages
            return
        target.tokens = target.tokens + source.tokens

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99))
    def fork(self, number: int) -> None:
        """A twin."""
        twin = self.pick(number)
        self.twins.append(Twin(twin.block.fork(), twin.tokens))

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99))
    def clear(self, number: int) -> None:
        """An emptied block stays in use."""
        twin = self.pick(number)
        twin.block.clear()
        twin.tokens = []

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99), length=st.integers(0, 100))
    def truncate(self, number: int, length: int) -> None:
        """As after a failed pass."""
        twin = self.pick(number)
        twin.block.truncate(length)
        twin.tokens = twin.tokens[:length]

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 99), properly=st.booleans())
    def drop(self, number: int, properly: bool) -> None:
        """A block is freed, or loses its last reference."""
        twin = self.twins.pop(number % len(self.twins))
        if properly:
            twin.block.free()

    def pages_needed(self, twin: Twin, count: int) -> int:
        """Pages that `count` more tokens of a block take by the book."""
        length = len(twin.tokens)
        new = -(-(length + count) // PAGE) - -(-length // PAGE)
        if not (count and length % PAGE):
            return new
        last = pages_of(twin.block)[-1]
        return new + (sum(last in pages_of(other.block) for other in self.twins) > 1)

    @invariant()
    def contents_are_right(self) -> None:
        """Every block holds its tokens."""
        for twin in self.twins:
            check_contents(twin.block, twin.tokens)

    @invariant()
    def pages_are_counted(self) -> None:
        """Every page has as many owners as blocks hold it, and no block holds one for nothing."""
        used = self.pool.used_pages
        owners = np.zeros_like(self.pool._owners)
        for twin in self.twins:
            pages = pages_of(twin.block)
            assert len(pages) == len(set(pages)) == -(-len(twin.tokens) // PAGE)
            owners[pages] += 1
        assert (self.pool._owners == owners).all()
        assert used == np.count_nonzero(owners) <= self.PAGES
        assert len(owners) <= self.PAGES
        assert self.pool.keys[0].shape[1] == len(owners) * PAGE


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestPoolMachine = PoolMachine.TestCase
