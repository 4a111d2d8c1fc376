"""A pass cut into tiles of work for kernels, all of it whole numbers that travel in one copy.

A *tile* is a few queries of one team: `queries x group` rows of a matrix product, where `group`
query heads share a key/value head. An *item* is a tile and a run of neighbouring slots of one block
that it reads; a kernel's program takes one item and one key/value head, so the keys and values of a
run are loaded once for all workers of a team. What a tile's items come to is merged in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.attention.interface import Pass, Row
from hogwild_agents.engine.attention.partition import Ints, connected
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.layers import Layer

LEAST_ROWS = 16
"""Of a tile: tensor cores take no fewer."""

MOST_ROWS = {128: 128, 192: 64}
"""Of a tile, for key sizes up to these; 32 for larger ones. With more, registers spill on sm_90, or
a tile takes more shared memory than consumer cards have (99 KiB); found by compiling for both."""

STEP = 64
"""Runs are cut at multiples of this many slots, which a program reads at a time."""

QUERY, TURN, ITEM, MERGE = 3, 3, 7, 3
"""Numbers of a query (packed place, row in its team, block-local position), of a turn (shift,
limit, own), of an item (see `Tiles`) and of a merge (first partial, step to the next, count)."""


class Kind(NamedTuple):
    """What layers must have in common to share tiles.

    Attributes:
        window: See `Layer`.
        group: Query heads per key/value head.
        kv_heads: Key/value heads, each of which is a program of its own.
        most_rows: Of a tile; registers hold no more.
    """

    window: int | None
    group: int
    kv_heads: int
    most_rows: int


def kind_of(layer: Layer) -> Kind:
    """The tiles that a layer takes."""
    group = layer.heads // layer.kv_heads
    rows = next((most for dim, most in MOST_ROWS.items() if layer.key_dim <= dim), 32)
    return Kind(layer.window, group, layer.kv_heads, rows)


class TileShape(NamedTuple):
    """Sizes of the tiles of one kind: items, partial results (one per item and query), rows."""

    items: int
    partials: int
    rows: int


class Shape(NamedTuple):
    """Sizes of a sheet. Sheets of one shape may go through one recorded run of the model."""

    tokens: int
    last: int
    turns: int
    tiles: tuple[TileShape, ...]


class Tiles(NamedTuple):
    """What a kind of layers reads in a pass, as integers.

    Attributes:
        items: [items, ITEM]: first query and how many, first slot and how many, block-local
            position of the first slot, turn of the team's first row against the block, first
            partial.
        merges: [tokens, MERGE], for every query.
        shape: The sizes.
    """

    items: Ints | Tensor
    merges: Ints | Tensor
    shape: TileShape


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """A pass in whole numbers, int64, on the host or on the device.

    Attributes:
        ids: [tokens], what the model reads.
        positions: [tokens], block-local.
        slots: [tokens], where keys and values go; -1 for padding, which goes nowhere.
        last: [rows], each row's last token.
        queries: [tokens, QUERY], teams one after the other.
        turns: [turns, TURN]: for every block of a team and every row of it, by how much the row's
            queries are turned, and up to where it sees: position x own + limit.
        tiles: For each kind of layers.
    """

    ids: Ints | Tensor
    positions: Ints | Tensor
    slots: Ints | Tensor
    last: Ints | Tensor
    queries: Ints | Tensor
    turns: Ints | Tensor
    tiles: dict[Kind, Tiles]

    @property
    def shape(self) -> Shape:
        """The sizes of all parts."""
        tiles = tuple(tiles.shape for tiles in self.tiles.values())
        return Shape(len(self.ids), len(self.last), len(self.turns), tiles)

    def _parts(self) -> Iterator[Ints | Tensor]:
        yield from (self.ids, self.positions, self.slots, self.last, self.queries, self.turns)
        for tiles in self.tiles.values():
            yield from (tiles.items, tiles.merges)

    def numbers(self) -> Ints:
        """All parts of a sheet on the host, one after the other."""
        return np.concatenate([np.ravel(part) for part in self._parts()])

    def over(self, numbers: Tensor) -> AttentionMetadata:
        """A sheet of this one's sizes whose parts lie in `numbers`, on any device."""
        sizes = [part.shape for part in self._parts()]
        cut = torch.split(numbers, [int(np.prod(size)) for size in sizes])
        ids, positions, slots, last, queries, turns, *rest = (
            part.view(size) for part, size in zip(cut, sizes, strict=True)
        )
        tiles = {
            kind: Tiles(rest[2 * index], rest[2 * index + 1], kept.shape)
            for index, (kind, kept) in enumerate(self.tiles.items())
        }
        return AttentionMetadata(ids, positions, slots, last, queries, turns, tiles)

    def padded(self) -> AttentionMetadata:
        """A sheet on the host, filled up to one of few shapes with tokens that nobody sees."""
        tokens = enough(len(self.ids), 1)
        queries = _fill(self.queries, tokens)
        queries[len(self.ids) :, 0] = np.arange(len(self.ids), tokens)
        return AttentionMetadata(
            _fill(self.ids, tokens),
            _fill(self.positions, tokens),
            _fill(self.slots, tokens, -1),
            _fill(self.last, tokens),
            queries,
            _fill(self.turns, enough(len(self.turns), 32)),
            {kind: _padded(tiles, tokens) for kind, tiles in self.tiles.items()},
        )


def enough(count: int, least: int) -> int:
    """`count` rounded up to a power of two or half-way to the next one, so that sizes are few."""
    size = least
    while size < count:
        if size >= 2 and size * 3 // 2 >= count:
            return size * 3 // 2
        size *= 2
    return size


def _padded(tiles: Tiles, tokens: int) -> Tiles:
    items, partials = enough(tiles.shape.items, 16), enough(tiles.shape.partials, 64)
    shape = TileShape(items, partials, tiles.shape.rows)
    return Tiles(_fill(tiles.items, items), _fill(tiles.merges, tokens), shape)


def _fill(part: Ints | Tensor, count: int, value: int = 0) -> Ints:
    full = np.full((count, *part.shape[1:]), value, np.int64)
    full[: len(part)] = part
    return full


class _Component(NamedTuple):
    """Rows that share blocks; their queries begin at `first`, their turns at `turn`."""

    rows: Sequence[Row]
    first: int
    turn: int
    numbers: dict[CacheBlock, int]


def make_sheet(current: Pass, kinds: Sequence[Kind], programs: int) -> AttentionMetadata:
    """Writes a pass down.

    Args:
        current: The pass.
        kinds: Of the model's layers.
        programs: How many programs fill the device.
    """
    queries: list[Ints] = []
    turns: list[tuple[int, int, int]] = []
    teams: list[_Component] = []
    first = 0
    for places, rows in connected(current.rows):
        numbers: dict[CacheBlock, int] = {}
        for row in rows:
            for block in row.view:
                numbers.setdefault(block, len(numbers))
        teams.append(_Component(rows, first, len(turns), numbers))
        turns += _turns(current, rows, numbers)
        counts = [row.count for row in rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        positions = np.concatenate([np.arange(r.position, r.position + r.count) for r in rows])
        queries.append(np.stack([places, row_of, positions], -1))
        first += len(places)
    return AttentionMetadata(
        current.ids,
        current.positions,
        current.slots,
        current.last,
        np.concatenate(queries),
        np.array(turns, np.int64),
        {kind: _make_tiles(current, teams, kind, programs) for kind in kinds},
    )


def _turns(
    current: Pass, rows: Sequence[Row], numbers: dict[CacheBlock, int]
) -> list[tuple[int, int, int]]:
    """Of each block, for each row: shift, limit and own."""
    turns = [(0, 0, 0)] * (len(numbers) * len(rows))  # a limit of 0: the row does not see it
    for index, row in enumerate(rows):
        own_start = row.starts[-1]
        for block, start in zip(row.view, row.starts, strict=True):
            turns[numbers[block] * len(rows) + index] = (
                own_start - start,
                current.lengths[block],
                0,
            )
        turns[numbers[row.view[-1]] * len(rows) + index] = (0, 1, 1)
    return turns


def _make_tiles(current: Pass, teams: Sequence[_Component], kind: Kind, programs: int) -> Tiles:
    largest = max(sum(row.count for row in team.rows) for team in teams)
    wanted = min(largest * kind.group, max(kind.most_rows, kind.group))
    rows = max(LEAST_ROWS, 1 << (wanted - 1).bit_length())
    per_tile = rows // kind.group
    tiles = [
        (team, start, min(per_tile, size - start))
        for team in teams
        for size in (sum(row.count for row in team.rows),)
        for start in range(0, size, per_tile)
    ]
    seen = [_seen(current, team.rows, start, count, kind.window) for team, start, count in tiles]
    total = sum(end - begin for spans in seen for begin, end in spans.values())
    longest = _round_up(-(-total * kind.kv_heads // programs))
    items: list[tuple[int, ...]] = []
    merges = np.empty((len(current.ids), MERGE), np.int64)
    partial = 0
    for (team, start, count), spans in zip(tiles, seen, strict=True):
        first, head = team.first + start, partial
        for block, (begin, end) in spans.items():
            turn = team.turn + team.numbers[block] * len(team.rows)
            for slot, length, base in _runs(block, begin, end, longest):
                items.append((first, count, slot, length, base, turn, partial))
                partial += count
        merged = merges[first : first + count]
        merged[:, 0] = np.arange(head, head + count)
        merged[:, 1:] = count, (partial - head) // count
    table = np.array(items, np.int64)
    table = table[np.argsort(-table[:, 3], kind="stable")]  # the longest first: all end together
    return Tiles(table, merges, TileShape(len(items), partial, rows))


def _seen(
    current: Pass, rows: Sequence[Row], start: int, count: int, window: int | None
) -> dict[CacheBlock, tuple[int, int]]:
    """Which positions of which blocks the queries start..start+count of a team's rows may see."""
    spans: dict[CacheBlock, tuple[int, int]] = {}
    at = 0
    for row in rows:
        low, high = max(start, at) - at, min(start + count, at + row.count) - at
        at += row.count
        if low >= high:
            continue
        own = row.view[-1]
        first, last = row.position + low, row.position + high - 1
        for block, begins in zip(row.view, row.starts, strict=True):
            end = last + 1 if block is own else current.lengths[block]
            shift = row.starts[-1] - begins
            begin = 0 if window is None else max(0, first + shift - window + 1)
            if begin < end:
                known = spans.get(block)
                spans[block] = (
                    (begin, end) if known is None else (min(begin, known[0]), max(end, known[1]))
                )
    return spans


def _runs(block: CacheBlock, begin: int, end: int, longest: int) -> Iterator[tuple[int, int, int]]:
    """Neighbouring slots of the positions begin..end: first slot, how many, first position."""
    base = 0
    for extent in block.extents:
        top = base + extent.count * PAGE
        low, high = max(begin, base), min(end, top)
        if low < high:
            parts = -(-(high - low) // longest)
            size = _round_up(-(-(high - low) // parts))
            for at in range(low, high, size):
                yield extent.first * PAGE + at - base, min(size, high - at), at
        base = top
        if base >= end:
            return


def _round_up(count: int) -> int:
    """To a multiple of STEP, one at least."""
    return max(1, -(-count // STEP)) * STEP
