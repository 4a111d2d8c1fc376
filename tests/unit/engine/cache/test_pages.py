"""Page tables and extents, without a pool."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.engine.cache.pages import (
    PAGE,
    Extent,
    PageTable,
    extents_of,
    pages_for,
    pages_of,
    slots_of,
)

PAGES = st.lists(st.integers(0, 50), unique=True, max_size=12)


def table_of(pages: list[int], length: int) -> PageTable:
    """A table of these pages that holds so many tokens."""
    table = PageTable()
    table.extents.extend(extents_of(pages))
    table.advance(length)
    return table


@given(PAGES)
def test_extents_are_the_longest_stretches(pages: list[int]) -> None:
    """They hold the same pages in the same order, and no two of them could be one."""
    extents = extents_of(pages)
    assert pages_of(extents) == pages
    assert all(a.first + a.count != b.first for a, b in pairwise(extents))


@pytest.mark.parametrize(
    ("tokens", "pages"), [(0, 0), (1, 1), (PAGE, 1), (PAGE + 1, 2), (3 * PAGE, 3)]
)
def test_pages_for(tokens: int, pages: int) -> None:
    """The last page may be partly used."""
    assert pages_for(tokens) == pages


@given(PAGES, st.data())
def test_slots(pages: list[int], data: st.DataObject) -> None:
    """Any part of a table, against the list of all its slots."""
    capacity = len(pages) * PAGE
    table = table_of(pages, capacity)
    start = data.draw(st.integers(0, capacity))
    stop = data.draw(st.integers(start, capacity))
    slots = table.slots(start, stop)
    assert slots.dtype == np.int64
    assert slots.tolist() == slots_of(pages)[start:stop].tolist()


@given(PAGES.filter(bool), st.data())
def test_shorten(pages: list[int], data: st.DataObject) -> None:
    """The pages that hold a remaining token stay, the others are returned."""
    length = data.draw(st.integers((len(pages) - 1) * PAGE + 1, len(pages) * PAGE))
    table = table_of(pages, length)
    shorter = data.draw(st.integers(0, length + PAGE))
    dropped = table.shorten(shorter)
    remaining = pages_for(min(length, shorter))
    assert len(table) == min(length, shorter)
    assert pages_of(table.extents) == pages[:remaining]
    assert sorted(pages_of(dropped)) == sorted(pages[remaining:])


def test_new_pages_and_the_last_one() -> None:
    """A page is new when the last one is full."""
    table = table_of([7, 8, 3], 2 * PAGE + 1)
    assert table.extents == [Extent(7, 2), Extent(3, 1)]
    assert table.last_page == 3
    assert [table.new_pages(count) for count in (0, 1, PAGE - 1, PAGE)] == [0, 0, 0, 1]


def test_an_empty_table_is_true() -> None:
    """A view may ask whether there is a block, not whether it holds anything."""
    assert PageTable()
    assert len(PageTable()) == 0
