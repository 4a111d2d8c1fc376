"""What each worker sees in a pass, cut into pieces that attention can read.

Rows that are connected through shared blocks form a *component*. Rows of different components never
meet in a score. What a component reads is cut into two kinds of pieces:

- *runs*: neighbouring slots that are visible to every query that sees their block. They are read in
  place, without a copy or a mask. In decode passes nearly all of a long context is of this kind.
- *pages*: the rest (small blocks, new tokens under a causal mask, edges of windows). They are
  gathered into one small tensor with a mask, so that many small blocks cost as much as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hogwild_agents.engine.attention.interface import Pass, Row
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE

Ints = npt.NDArray[np.int64]


class SlotRun(NamedTuple):
    """The slots start..stop of one block, all visible to every query that sees the block."""

    block: int
    start: int
    stop: int


class GatheredPage(NamedTuple):
    """One page of a block, which begins at block-local position `base`; start..stop are read."""

    block: int
    page: int
    base: int
    start: int
    stop: int


class VisibleRange(NamedTuple):
    """Positions of a block: start..stop for some query, common_start..common_stop for every reader.

    All are block-local; a reader is a row whose view holds the block.
    """

    start: int
    common_start: int
    common_stop: int
    stop: int


@dataclass(slots=True)
class Component:
    """What rows that are connected through blocks read in the layers of one window.

    Attributes:
        rows: The rows, in packed order.
        tokens: [queries], indices of the rows' new tokens among the packed tokens.
        block_index: The blocks of the rows' views, numbered.
        shifts: [blocks, rows], by how much a row's queries are rotated to meet a block.
        uniform: Whether all queries see the same of every block, as in most decode passes.
        runs: Pieces that are read in place.
        pages: Pieces that are gathered.
    """

    rows: Sequence[Row]
    tokens: Ints
    block_index: dict[CacheBlock, int]
    shifts: Ints
    uniform: bool
    runs: list[SlotRun]
    pages: list[GatheredPage]


def connected_rows(rows: Sequence[Row]) -> Iterator[tuple[Ints, list[Row]]]:
    """The rows of each component, with the packed indices of their new tokens."""
    components: list[tuple[set[CacheBlock], list[int]]] = []
    for index, row in enumerate(rows):
        blocks, members, others = set(row.view), [index], []
        for component in components:
            if blocks.isdisjoint(component[0]):
                others.append(component)
            else:
                blocks, members = blocks | component[0], component[1] + members
        components = [*others, (blocks, members)]
    starts = np.cumsum([0, *(row.count for row in rows)])
    for _, members in components:
        members.sort()
        tokens = [np.arange(starts[index], starts[index + 1]) for index in members]
        yield np.concatenate(tokens), [rows[index] for index in members]


def number_blocks(rows: Sequence[Row]) -> dict[CacheBlock, int]:
    """Numbers the blocks of the rows' views."""
    block_index: dict[CacheBlock, int] = {}
    for row in rows:
        for block in row.view:
            block_index.setdefault(block, len(block_index))
    return block_index


def plan_component(
    current: Pass, tokens: Ints, rows: Sequence[Row], window: int | None, min_run: int
) -> Component:
    """Finds what the rows of a component see, and cuts it into pieces.

    Args:
        current: The pass.
        tokens: [queries], packed indices of the rows' new tokens.
        rows: The rows of one component.
        window: Window of the layers.
        min_run: Pieces of fewer slots are gathered, not read in place.
    """
    block_index = number_blocks(rows)
    shifts = np.zeros((len(block_index), len(rows)), np.int64)
    ranges: list[VisibleRange | None] = [None] * len(block_index)
    readers = [0] * len(block_index)
    for index, row in enumerate(rows):
        own, own_start = row.view[-1], row.starts[-1]
        for block, start in zip(row.view, row.starts, strict=True):
            number, length = block_index[block], current.lengths[block]
            shifts[number, index] = own_start - start
            readers[number] += 1
            begin = common_begin = 0
            if window is not None:
                first_seen = row.position + own_start - start - window + 1
                begin = max(0, first_seen)
                common_begin = max(0, first_seen + row.count - 1)
            common_end = row.position + 1 if block is own else length
            visible = ranges[number]
            ranges[number] = (
                VisibleRange(begin, common_begin, common_end, length)
                if visible is None
                else VisibleRange(
                    min(visible.start, begin),
                    max(visible.common_start, common_begin),
                    min(visible.common_stop, common_end),
                    length,
                )
            )
    component = Component(rows, tokens, block_index, shifts, True, [], [])
    for block, number in block_index.items():
        visible = ranges[number]
        assert visible is not None  # every block is in some view
        if visible.start >= visible.stop:
            continue
        if readers[number] < len(rows):
            # New tokens must not reach a row that does not see them, not even as 0 x NaN.
            visible = visible._replace(common_stop=min(visible.common_stop, len(block)))
        if visible.start < visible.common_start or visible.common_stop < visible.stop:
            component.uniform = False
        component.uniform = component.uniform and readers[number] == len(rows)
        _cut(component, block, number, visible, min_run)
    return component


def _cut(
    component: Component, block: CacheBlock, number: int, visible: VisibleRange, min_run: int
) -> None:
    """Cuts the visible range of a block into runs of at least `min_run` slots, and pages."""
    base = 0
    for extent in block.extents:
        end = base + extent.count * PAGE
        shift = extent.first * PAGE - base
        start, stop = max(visible.common_start, base), min(visible.common_stop, end)
        rest = [(max(visible.start, base), min(visible.stop, end))]
        if stop > start and max(stop - start, PAGE) >= min_run:  # a gather takes whole pages
            component.runs.append(SlotRun(number, start + shift, stop + shift))
            rest = [(rest[0][0], start), (stop, rest[0][1])]
        for first, last in rest:
            for page in range(first // PAGE, -(-last // PAGE)) if last > first else ():
                component.pages.append(
                    GatheredPage(number, page + shift // PAGE, page * PAGE, first, last)
                )
        base = end


def visible_bounds(current: Pass, component: Component, window: int | None) -> tuple[Ints, Ints]:
    """What each query sees of each block: the positions between two bounds, both exclusive.

    Returns:
        The lower and the upper bounds, int64 [blocks, queries]; the upper one is 0 where a query
        does not see a block.
    """
    shape = (len(component.block_index), len(component.tokens))
    lower, upper = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    at = 0
    for row in component.rows:
        queries, own_start = slice(at, at + row.count), row.starts[-1]
        positions = np.arange(row.position, row.position + row.count)
        for block, start in zip(row.view, row.starts, strict=True):
            number = component.block_index[block]
            upper[number, queries] = current.lengths[block]
            if window is not None:
                lower[number, queries] = positions + (own_start - start - window)
        upper[component.block_index[row.view[-1]], queries] = positions + 1
        at += row.count
    return lower, upper
