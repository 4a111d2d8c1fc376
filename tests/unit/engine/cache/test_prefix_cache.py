"""The prefix cache: what it matches, what it costs, and what it evicts first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.cache import prefix_cache
from hogwild_agents.engine.cache.pages import PAGE, Ints
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.cache.prefix_cache import PrefixCache, common_length
from tests.unit.engine.cache.pools import make_pool
from tests.unit.engine.jobs import check_planted, pages_of, plant
from tests.unit.engine.reference import contents


def ids(*parts: tuple[int, int]) -> Ints:
    """Ids in stretches: pairs of the first one and how many."""
    return np.concatenate([np.empty(0, np.int64), *(np.arange(n, n + count) for n, count in parts)])


def put(store: PrefixCache, pool: CachePool, tokens: Ints) -> CacheBlock:
    """Reads a prompt as the engine does, from what the store has of it, and keeps it."""
    match = store.take(tokens)
    block, length = match if match is not None else (CacheBlock(pool), 0)
    plant(block, tokens[length:].tolist())
    store.put(tokens, block)
    return block


def kept(store: PrefixCache) -> list[list[int]]:
    """The prompts in the store, the least recently used first."""
    return [entry.tokens.tolist() for entry in store._entries]


class TestFinding:
    """The longest beginning that any prompt has in common."""

    @pytest.mark.parametrize("common", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 69])
    def test_as_much_as_is_alike(self, common: int) -> None:
        """Token by token, from a page on."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        put(store, pool, ids((0, 70))).free()
        tokens = ids((0, common), (500, 90 - common))
        assert store.match(tokens) == common
        match = store.take(tokens)
        if common < PAGE:
            assert match is None
        else:
            assert match is not None
            block, length = match
            assert length == common
            check_planted(block, list(range(common)))

    def test_never_the_whole_prompt(self) -> None:
        """One token at least is left to be read."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        put(store, pool, ids((0, 100))).free()
        for length in (PAGE + 1, 64, 99, 100):
            match = store.take(ids((0, length)))
            assert match is not None
            assert match[1] == len(match[0]) == length - 1
        assert store.take(ids((0, PAGE))) is None
        assert store.take(ids((0, 1))) is None
        match = store.take(ids((0, 120)))
        assert match is not None
        assert match[1] == 100

    def test_the_longest_of_many(self) -> None:
        """Wherever in the store it stands."""
        pool = make_pool(80)
        store = PrefixCache(pool, 60)
        for common in (40, 90, 60):
            put(store, pool, ids((0, common), (1000 * common, 50))).free()
        match = store.take(ids((0, 200)))
        assert match is not None
        assert match[1] == 90

    def test_an_empty_store(self) -> None:
        """It matches nothing and evicts nothing."""
        pool = make_pool(4)
        store = PrefixCache(pool, 4)
        assert store.match(ids((0, 50))) == 0
        assert store.take(ids((0, 50))) is None
        assert not store.evict()
        assert (len(store), store.pages) == (0, 0)
        store.clear()

    def test_a_taken_beginning_may_be_written_to(self) -> None:
        """The kept prompt is as it was, and so is a second one that is taken."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        put(store, pool, ids((0, 70))).free()
        one, other = store.take(ids((0, 50), (900, 9))), store.take(ids((0, 50), (800, 9)))
        assert one is not None
        assert other is not None
        plant(one[0], [700] * 40)
        check_planted(other[0], list(range(50)))
        assert store.match(ids((0, 70))) == 70
        again = store.take(ids((0, 80)))
        assert again is not None
        check_planted(again[0], list(range(70)))


class TestKeeping:
    """Cached prompts cost only the pages that no other block holds, up to the limit."""

    def test_a_prompt_is_kept_without_a_copy(self) -> None:
        """It takes no page more while its session runs."""
        pool = make_pool(20)
        store = PrefixCache(pool, 20)
        block = put(store, pool, ids((0, 70)))
        assert pool.used_pages == store.pages == 3
        block.free()
        assert pool.used_pages == 3
        store.clear()
        assert pool.used_pages == 0

    def test_shared_pages_count_once(self) -> None:
        """Three prompts on one beginning fit where three copies would not."""
        pool = make_pool(40)
        store = PrefixCache(pool, 5)
        for index in range(3):
            put(store, pool, ids((0, 2 * PAGE), (500 * (index + 1), PAGE))).free()
        assert len(store) == 3
        assert store.pages == pool.used_pages == 5

    def test_a_longer_prompt_takes_the_place_of_its_beginning(self) -> None:
        """And so does the same prompt once more."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        put(store, pool, ids((0, 40))).free()
        put(store, pool, ids((900, 40))).free()
        put(store, pool, ids((0, 100))).free()
        put(store, pool, ids((0, 100))).free()
        assert kept(store) == [ids((900, 40)).tolist(), ids((0, 100)).tolist()]

    @pytest.mark.parametrize("limit", [0, 1, 2, 3])
    def test_a_prompt_beyond_the_limit_is_not_kept(self, limit: int) -> None:
        """It would only drive out all others."""
        pool = make_pool(20)
        store = PrefixCache(pool, limit)
        for pages in (1, 2, 3):
            tokens = ids((0, pages * PAGE - 1))
            assert store.accepts(tokens) == (pages <= limit)
        put(store, pool, ids((0, 20))).free()
        before = kept(store)
        put(store, pool, ids((100, 3 * PAGE + 1))).free()
        assert kept(store) == before, "and nothing is evicted for it"

    def test_the_least_recently_used_goes_first(self) -> None:
        """To be taken is to be used."""
        pool = make_pool(40)
        store = PrefixCache(pool, 6)
        for index in range(3):
            put(store, pool, ids((1000 * index, 2 * PAGE))).free()
        match = store.take(ids((0, 2 * PAGE + 5)))
        assert match is not None
        match[0].free()
        put(store, pool, ids((5000, PAGE))).free()
        assert [tokens[0] for tokens in kept(store)] == [2000, 0, 5000]
        assert store.evict()
        assert [tokens[0] for tokens in kept(store)] == [0, 5000]
        assert pool.used_pages == store.pages == 3

    def test_evictable_pages(self) -> None:
        """Pages that other blocks hold would stay."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        block = put(store, pool, ids((0, 70)))
        put(store, pool, ids((0, 70), (500, 40))).free()
        put(store, pool, ids((900, 40))).free()
        assert store.evictable_pages == store.pages - 2, "the block's last page was copied"
        block.free()
        assert store.evictable_pages == store.pages == pool.used_pages
        spare = store.evictable_pages
        store.clear()
        assert (store.evictable_pages, pool.free_pages) == (0, 40)
        assert spare == 6

    def test_no_more_prompts_than_can_be_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However short they are."""
        monkeypatch.setattr(prefix_cache, "MAX_ENTRIES", 3)
        pool = make_pool(40)
        store = PrefixCache(pool, 40)
        for index in range(5):
            put(store, pool, ids((1000 * index, 5))).free()
        assert [tokens[0] for tokens in kept(store)] == [2000, 3000, 4000]

    def test_a_vain_search_uses_nothing(self) -> None:
        """Only what is taken counts as used."""
        pool = make_pool(40)
        store = PrefixCache(pool, 20)
        for index in range(3):
            put(store, pool, ids((1000 * index, 2 * PAGE))).free()
        assert store.take(ids((0, PAGE - 1), (7000, 50))) is None
        assert store.match(ids((0, 2 * PAGE))) == 2 * PAGE
        assert [tokens[0] for tokens in kept(store)] == [0, 1000, 2000]


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_common_length(one: list[int], other: list[int]) -> None:
    """As counted one by one."""
    expected = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        expected += 1
    assert common_length(np.array(one, np.int64), np.array(other, np.int64)) == expected


@dataclass(frozen=True)
class Prompt:
    """A path in a tree of prompts: which branch is taken, and after how many tokens."""

    branches: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> Ints:
        """Ids that tell the path."""
        path = 0
        parts = []
        for branch, count in self.branches:
            path = 7 * path + branch + 1
            parts.append((1000 * path, count))
        return ids(*parts)


PROMPTS = st.builds(
    Prompt,
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([5, 20, PAGE, 50])), min_size=1, max_size=4
    ).map(tuple),
)


@given(
    st.lists(st.tuples(PROMPTS, st.sampled_from(["keep", "free", "free", "evict"])), max_size=14),
    st.sampled_from([0, 2, 5, 100]),
)
@settings(max_examples=50)
def test_any_prompts_in_any_order(steps: list[tuple[Prompt, str]], limit: int) -> None:
    """Against a search of all cached prompts, next to the blocks of sessions."""
    pool = make_pool(300)
    store = PrefixCache(pool, limit)
    sessions: list[tuple[CacheBlock, Ints]] = []
    for prompt, what in steps:
        tokens = prompt.tokens
        before = kept(store)
        best = max((common_length(np.array(old), tokens) for old in before), default=0)
        assert store.match(tokens) == best
        match = store.take(tokens)
        usable = min(best, len(tokens) - 1)
        assert (match is None) == (usable < PAGE)
        block = CacheBlock(pool)
        if match is not None:
            block, length = match
            assert length == len(block) == usable
            assert common_length(np.array(kept(store)[-1]), tokens) == best
            assert sorted(kept(store)) == sorted(before)
        plant(block, tokens[len(block) :].tolist())
        check_planted(block, tokens.tolist())
        store.put(tokens, block)
        assert store.pages <= limit
        assert not store.accepts(tokens) or kept(store)[-1] == tokens.tolist()
        sessions.append((block, tokens))
        if what == "free":
            sessions.pop(0)[0].free()
        elif what == "evict":
            oldest = kept(store)[:1]
            assert store.evict() == bool(oldest)
            assert kept(store)[:1] != oldest or not oldest
        held = [entry.block for entry in store._entries] + [block for block, _ in sessions]
        assert pool.used_pages == len(pages_of(held))
        for entry in store._entries:
            check_planted(entry.block, entry.tokens.tolist())
    for block, tokens in sessions:
        check_planted(block, tokens.tolist())
        block.free()
    assert pool.used_pages == store.pages
    store.clear()
    assert pool.used_pages == 0


def test_what_is_kept_is_what_was_read() -> None:
    """Bit by bit, through several hands."""
    pool = make_pool(40)
    store = PrefixCache(pool, 20)
    first = put(store, pool, ids((0, 70)))
    then = [tensor.clone() for tensor in contents(first)]
    first.free()
    for _ in range(3):
        block = put(store, pool, ids((0, 70), (300, 10)))
        for now, before in zip(contents(block), then, strict=True):
            assert torch.equal(now[:, :70], before)
        block.free()
