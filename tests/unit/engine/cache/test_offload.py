"""Offloaded blocks are restored bit by bit, and shared as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import OutOfCacheMemoryError
from tests.unit.engine.cache.pools import make_pool
from tests.unit.engine.jobs import check_planted, pages_of, plant
from tests.unit.engine.reference import contents

COUNTS = st.sampled_from([0, 1, 5, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 70])


def filled(pool: CachePool, count: int, first: int = 0) -> CacheBlock:
    """A block of `count` tokens, numbered from `first` on."""
    block = CacheBlock(pool)
    plant(block, list(range(first, first + count)))
    return block


def same(now: Sequence[Tensor], then: Sequence[Tensor]) -> bool:
    """Whether two contents agree in every bit."""
    return all(torch.equal(one, other) for one, other in zip(now, then, strict=True))


def everything(blocks: Sequence[CacheBlock]) -> list[Tensor]:
    """The contents of all blocks."""
    return [tensor for block in blocks for tensor in contents(block)]


@given(st.lists(COUNTS, min_size=1, max_size=5), st.integers(0, 5))
def test_bit_by_bit(counts: list[int], forks: int) -> None:
    """Blocks of any size, some of them twins, into pages that others have used meanwhile."""
    pool = make_pool(60)
    blocks = [filled(pool, count, 100 * index) for index, count in enumerate(counts)]
    for index in range(forks):
        twin = blocks[index % len(blocks)].fork()
        plant(twin, [900 + index] * (index % 3))
        blocks.append(twin)
    then, used = everything(blocks), pool.used_pages
    offloaded = OffloadedBlocks(blocks)
    assert offloaded.pages == used
    assert pool.used_pages == 0
    assert all(len(block) == 0 for block in blocks)
    newcomer = filled(pool, 3 * PAGE + 1, 5000)
    offloaded.restore()
    assert pool.used_pages == used + 4
    assert same(everything(blocks), then)
    check_planted(newcomer, list(range(5000, 5000 + 3 * PAGE + 1)))
    for block in blocks:
        plant(block, [7])
    assert same([t[:, : u.shape[1]] for t, u in zip(everything(blocks), then, strict=True)], then)
    for block in blocks:
        block.free()
    assert pool.used_pages == 4


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
def test_a_twin_that_stays(length: int) -> None:
    """It keeps its pages; the restored one has its own from then on."""
    pool = make_pool(20)
    block = filled(pool, length)
    twin = block.fork()
    pages = pages_of([twin])
    offloaded = OffloadedBlocks([block])
    assert pages_of([twin]) == pages
    assert pool.used_pages == len(pages)
    plant(twin, [500])
    offloaded.restore()
    check_planted(block, list(range(length)))
    check_planted(twin, [*range(length), 500])
    assert not pages_of([block]) & pages_of([twin])


def test_twins_that_go_together_still_share() -> None:
    """Memory is no more than before, and the first to write gets its own copy."""
    pool = make_pool(20)
    block = filled(pool, 40)
    twins = [block, block.fork(), block.fork()]
    OffloadedBlocks(twins).restore()
    assert pool.used_pages == 2
    plant(twins[1], [500])
    assert pool.used_pages == 3
    check_planted(twins[0], list(range(40)))
    check_planted(twins[1], [*range(40), 500])
    check_planted(twins[2], list(range(40)))


def test_no_room_to_restore() -> None:
    """Nothing has changed then, and it can be tried again."""
    pool = make_pool(6)
    block = filled(pool, 3 * PAGE + 2)
    then = everything([block])
    offloaded = OffloadedBlocks([block])
    newcomer = filled(pool, 3 * PAGE)
    for _ in range(3):
        with pytest.raises(OutOfCacheMemoryError, match=r"4 pages.*3 of 6"):
            offloaded.restore()
        assert len(block) == 0
        assert pool.used_pages == 3
    newcomer.free()
    offloaded.restore()
    assert same(everything([block]), then)


def test_a_device_without_memory_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages that were taken are given back; it can be tried again."""
    pool = make_pool(6)
    block = filled(pool, 50)
    then = everything([block])
    offloaded = OffloadedBlocks([block])

    def fail(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "tensor", fail)
        with pytest.raises(OutOfCacheMemoryError, match="2 pages"):
            offloaded.restore()
    assert pool.used_pages == 0
    offloaded.restore()
    assert same(everything([block]), then)


def test_storage_that_was_given_back_meanwhile() -> None:
    """The pool shrinks to nothing when the last block is freed; restoring makes it grow again."""
    pool = make_pool(10)
    block, other = filled(pool, 50), filled(pool, 60)
    then = everything([block])
    offloaded = OffloadedBlocks([block])
    other.free()
    assert pool.keys[0].shape[1] == 0
    offloaded.restore()
    assert same(everything([block]), then)


def test_blocks_that_hold_nothing() -> None:
    """Empty ones are empty again, freed ones stay freed."""
    pool = make_pool(4)
    empty, freed = CacheBlock(pool), filled(pool, 3)
    freed.free()
    for blocks in ([empty], [freed], [freed, empty]):
        offloaded = OffloadedBlocks(blocks)
        assert offloaded.pages == 0
        offloaded.restore()
    assert len(empty) == 0
    assert freed.freed
    plant(empty, [1, 2, 3])
    check_planted(empty, [1, 2, 3])


@dataclass
class Twin:
    """A block and what it should hold."""

    block: CacheBlock
    tokens: list[int]


class ParkingMachine(RuleBasedStateMachine):
    """Blocks that grow, fork, go out and come back, against plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool(40)
        self.inside: list[Twin] = []
        self.outside: list[tuple[OffloadedBlocks, list[Twin]]] = []
        self.next_token = 0

    @rule(count=COUNTS)
    def new(self, count: int) -> None:
        """A block."""
        self.inside.append(Twin(CacheBlock(self.pool), []))
        self.append(len(self.inside) - 1, count)

    @precondition(lambda self: self.inside)
    @rule(number=st.integers(0, 9), count=COUNTS)
    def append(self, number: int, count: int) -> None:
        """More tokens, if they fit."""
        twin = self.inside[number % len(self.inside)]
        tokens = list(range(self.next_token, self.next_token + count))
        if self.pool.pages_needed([(twin.block, count)]) <= self.pool.free_pages:
            plant(twin.block, tokens)
            twin.tokens = twin.tokens + tokens
            self.next_token += count

    @precondition(lambda self: self.inside)
    @rule(number=st.integers(0, 9))
    def fork(self, number: int) -> None:
        """A twin."""
        twin = self.inside[number % len(self.inside)]
        self.inside.append(Twin(twin.block.fork(), twin.tokens))

    @precondition(lambda self: self.inside)
    @rule(chosen=st.sets(st.integers(0, 9), min_size=1, max_size=4))
    def go_out(self, chosen: set[int]) -> None:
        """Some blocks, whether or not others share their pages."""
        going = [twin for index, twin in enumerate(self.inside) if index in chosen]
        if going:
            self.inside = [twin for index, twin in enumerate(self.inside) if index not in chosen]
            self.outside.append((OffloadedBlocks([twin.block for twin in going]), going))

    @precondition(lambda self: self.outside)
    @rule(number=st.integers(0, 9))
    def come_back(self, number: int) -> None:
        """Those that went together, if they fit."""
        offloaded, twins = self.outside[number % len(self.outside)]
        if offloaded.pages > self.pool.free_pages:
            with pytest.raises(OutOfCacheMemoryError):
                offloaded.restore()
            return
        offloaded.restore()
        self.outside.remove((offloaded, twins))
        self.inside += twins

    @precondition(lambda self: self.outside)
    @rule()
    def give_up(self) -> None:
        """Blocks are freed while they are out."""
        _, twins = self.outside.pop()
        for twin in twins:
            twin.block.free()

    @invariant()
    def contents_and_pages(self) -> None:
        """Who is inside holds what it should, and no page is lost."""
        for twin in self.inside:
            check_planted(twin.block, twin.tokens)
        held = pages_of(twin.block for twin in self.inside)
        assert self.pool.used_pages == len(held)
        assert all(len(twin.block) == 0 for _, twins in self.outside for twin in twins)


ParkingMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20)
TestParkingMachine = ParkingMachine.TestCase
