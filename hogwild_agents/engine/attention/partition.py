"""Who sees what in a pass, cut into pieces that attention can read.

Rows that share no block, directly or through others, are different *teams* and never meet in a
score. What a team reads is cut into two kinds of pieces:

- *stretches*: neighbouring slots that every query sees which sees their block. They are read in
  place, with no copy and no mask. At decoding nearly all of a long context is of this kind.
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


class Stretch(NamedTuple):
    """The slots start..stop of one block, seen in full by every query that sees the block."""

    block: int
    start: int
    stop: int


class Page(NamedTuple):
    """One page of a block: it begins at block-local position `base`; first..last take part."""

    block: int
    page: int
    base: int
    first: int
    last: int


class Range(NamedTuple):
    """Block-local positions of a block that some queries see, and that all of its readers see."""

    first: int
    common_first: int
    common_last: int
    last: int


@dataclass(slots=True)
class Component:
    """What the rows that are connected through blocks read in layers of one window.

    Attributes:
        rows: The rows, in packed order.
        places: [queries], where the rows' new tokens are in the packed row.
        numbers: The blocks that the rows see, numbered.
        shifts: [blocks, rows], by how much a row's queries are turned to meet a block.
        alike: Whether all queries see the same of every block, as in most decode passes.
        stretches: Pieces read in place.
        pages: Pieces gathered.
    """

    rows: Sequence[Row]
    places: Ints
    numbers: dict[CacheBlock, int]
    shifts: Ints
    alike: bool
    stretches: list[Stretch]
    pages: list[Page]


def connected(rows: Sequence[Row]) -> Iterator[tuple[Ints, list[Row]]]:
    """Rows that share blocks, directly or through others, with their places in the packed row."""
    teams: list[tuple[set[CacheBlock], list[int]]] = []
    for index, row in enumerate(rows):
        blocks, members, others = set(row.view), [index], []
        for team in teams:
            if blocks.isdisjoint(team[0]):
                others.append(team)
            else:
                blocks, members = blocks | team[0], team[1] + members
        teams = [*others, (blocks, members)]
    starts = np.cumsum([0, *(row.count for row in rows)])
    for _, members in teams:
        members.sort()
        places = [np.arange(starts[index], starts[index + 1]) for index in members]
        yield np.concatenate(places), [rows[index] for index in members]


def plan_component(
    current: Pass, places: Ints, rows: Sequence[Row], window: int | None, few: int
) -> Component:
    """Finds out what the rows of a team see, and cuts it into pieces.

    Args:
        current: The pass.
        places: [queries], where the rows' new tokens are in the packed row.
        rows: The rows of one team.
        window: Of the layers.
        few: Slots below which a piece is gathered rather than read in place.
    """
    numbers: dict[CacheBlock, int] = {}
    for row in rows:
        for block in row.view:
            numbers.setdefault(block, len(numbers))
    shifts = np.zeros((len(numbers), len(rows)), np.int64)
    ranges: list[Range | None] = [None] * len(numbers)
    readers = [0] * len(numbers)
    for index, row in enumerate(rows):
        own, own_start = row.view[-1], row.starts[-1]
        for block, start in zip(row.view, row.starts, strict=True):
            number, length = numbers[block], current.lengths[block]
            shifts[number, index] = own_start - start
            readers[number] += 1
            begin = common_begin = 0
            if window is not None:
                first_seen = row.position + own_start - start - window + 1
                begin = max(0, first_seen)
                common_begin = max(0, first_seen + row.count - 1)
            common_end = row.position + 1 if block is own else length
            known = ranges[number]
            ranges[number] = (
                Range(begin, common_begin, common_end, length)
                if known is None
                else Range(
                    min(known.first, begin),
                    max(known.common_first, common_begin),
                    min(known.common_last, common_end),
                    length,
                )
            )
    team = Component(rows, places, numbers, shifts, True, [], [])
    for block, number in numbers.items():
        found = ranges[number]
        assert found is not None  # every block is in some view
        if found.first >= found.last:
            continue
        if readers[number] < len(rows):
            # What is written now must not reach a row that does not see it, not even as 0 x NaN.
            found = found._replace(common_last=min(found.common_last, len(block)))
        if found.first < found.common_first or found.common_last < found.last:
            team.alike = False
        team.alike = team.alike and readers[number] == len(rows)
        _cut(team, block, number, found, few)
    return team


def _cut(team: Component, block: CacheBlock, number: int, found: Range, few: int) -> None:
    """Cuts what is seen of a block into stretches of at least `few` slots, and pages."""
    base = 0
    for extent in block.extents:
        end = base + extent.count * PAGE
        shift = extent.first * PAGE - base
        start, stop = max(found.common_first, base), min(found.common_last, end)
        pieces = [(max(found.first, base), min(found.last, end))]
        if stop > start and max(stop - start, PAGE) >= few:  # a gather takes whole pages
            team.stretches.append(Stretch(number, start + shift, stop + shift))
            pieces = [(pieces[0][0], start), (stop, pieces[0][1])]
        for begin, finish in pieces:
            for page in range(begin // PAGE, -(-finish // PAGE)) if finish > begin else ():
                team.pages.append(Page(number, page + shift // PAGE, page * PAGE, begin, finish))
        base = end


def limits(current: Pass, team: Component, window: int | None) -> tuple[Ints, Ints]:
    """What each query sees of each block: positions below the first array, above the second.

    Returns:
        Two arrays int64 [blocks, queries]; the first is 0 where a query does not see a block.
    """
    shape = (len(team.numbers), len(team.places))
    upto, after = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    at = 0
    for row in team.rows:
        mine, own_start = slice(at, at + row.count), row.starts[-1]
        own = np.arange(row.position, row.position + row.count)
        for block, start in zip(row.view, row.starts, strict=True):
            number = team.numbers[block]
            upto[number, mine] = current.lengths[block]
            if window is not None:
                after[number, mine] = own + (own_start - start - window)
        upto[team.numbers[row.view[-1]], mine] = own + 1
        at += row.count
    return upto, after
