"""A pass cut into tiles: every query meets every token that it sees once, at the right distance."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hogwild_agents.engine.attention.interface import Pass
from hogwild_agents.engine.attention.partition import connected
from hogwild_agents.engine.attention.tiles import (
    ITEM,
    LEAST_ROWS,
    MERGE,
    QUERY,
    STEP,
    TURN,
    AttentionMetadata,
    Kind,
    enough,
    kind_of,
    make_sheet,
)
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import no_rotation
from tests.unit.engine.attention.scenes import Grow, Scene, Stage, Writer, scenes

Ints: TypeAlias = npt.NDArray[np.int64]

COUNTS = (1, 1, 1, 2, 5, 17, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 1)

KINDS = st.builds(
    Kind,
    window=st.sampled_from([None, None, 1, 7, PAGE, 70]),
    group=st.sampled_from([1, 2, 4, 7, 71]),
    kv_heads=st.sampled_from([1, 2, 8]),
    most_rows=st.sampled_from([64, 128]),
)
PROGRAMS = st.sampled_from([1, 3, 8, 30, 400, 10**6])


def begin(scene: Scene) -> Pass:
    """A scene's pass over a pool that holds hardly anything."""
    layer = Layer(0, 1, 1, 1, 1, no_rotation(1), None)
    return Stage(CachePool([layer], torch.float32, torch.device("cpu"), 2**16), scene).current


def host(part: Ints | Tensor) -> Ints:
    """A part of a sheet that was just made."""
    assert isinstance(part, np.ndarray)
    assert part.dtype == np.int64
    return part


def meetings(place: Ints, slot: Ints, distance: Ints) -> Ints:
    """Pairs of a query and a token that it sees, and how far apart they are: sorted numbers."""
    assert place.max(initial=0) < 2**14
    assert slot.max(initial=0) < 2**20
    assert 0 <= distance.min(initial=0) <= distance.max(initial=0) < 2**28
    return np.sort((place << 48) + (slot << 28) + distance)


def expected_meetings(current: Pass, window: int | None) -> Ints:
    """What each query sees by the definition of a view, one query at a time."""
    places, slots, distances = [], [], []
    place = itertools.count()
    for row in current.rows:
        for position in range(row.position, row.position + row.count):
            number = next(place)
            standing = row.starts[-1] + position
            for block, start in zip(row.view, row.starts, strict=True):
                own = block is row.view[-1]
                seen = np.arange(position + 1 if own else current.lengths[block])
                distance = standing - (start + seen)
                near = distance < (window or 2**40)
                slots.append(block.slots(0, len(seen))[near])
                distances.append(distance[near])
                places.append(np.full(len(slots[-1]), number))
    return meetings(*map(np.concatenate, (places, slots, distances)))


def sheet_meetings(sheet: AttentionMetadata, kind: Kind) -> Ints:
    """What the kernels let each query see, by their own rules."""
    queries, turns, items = map(host, (sheet.queries, sheet.turns, sheet.tiles[kind].items))
    places, slots, distances = [np.empty(0, np.int64)], [], []
    for first, count, slot, length, base, turn, _ in items.tolist():
        number = np.arange(first, first + count if length else first)
        place, row, position = queries[number].T
        shift, limit, own = turns[turn + row].T
        at = base + np.arange(length)
        seen = at < (limit + position * own)[:, None]
        if kind.window is not None:
            seen &= at > (position + shift - kind.window)[:, None]
        query, offset = np.nonzero(seen)
        places.append(place[query])
        slots.append(slot + offset)
        distances.append((position + shift)[query] - at[offset])
    return meetings(*map(np.concatenate, (places, slots, distances)))


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=250)
def test_every_query_meets_what_it_sees_once(
    scene: Scene, kinds: list[Kind], programs: int
) -> None:
    """At the right distance, through whichever tile; and nothing else."""
    current = begin(scene)
    sheet = make_sheet(current, kinds, programs)
    assert list(sheet.tiles) == kinds
    for kind in kinds:
        assert np.array_equal(sheet_meetings(sheet, kind), expected_meetings(current, kind.window))


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_queries_are_the_new_tokens_team_by_team(scene: Scene, kind: Kind, programs: int) -> None:
    current = begin(scene)
    sheet = make_sheet(current, [kind], programs)
    queries = host(sheet.queries)
    assert sorted(queries[:, 0]) == list(range(len(current.ids)))
    assert np.array_equal(queries[:, 2], current.positions[queries[:, 0]])
    team_of = {
        int(place): team
        for team, (places, _) in enumerate(connected(current.rows))
        for place in places
    }
    teams = [team_of[place] for place in queries[:, 0].tolist()]
    assert teams == sorted(teams)
    for first, count in host(sheet.tiles[kind].items)[:, :2].tolist():
        assert len(set(teams[first : first + count])) == 1, "a tile is of one team"
    assert np.array_equal(host(sheet.slots), current.slots)
    assert np.array_equal(host(sheet.ids), current.ids)
    assert np.array_equal(host(sheet.positions), current.positions)
    assert np.array_equal(host(sheet.last), current.last)


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_merges_name_the_partial_results_of_their_query(
    scene: Scene, kind: Kind, programs: int
) -> None:
    """No two items share one, none is left out, and each query finds all of its own."""
    tiles = make_sheet(begin(scene), [kind], programs).tiles[kind]
    own: dict[int, list[int]] = {}
    for first, count, *_, partial in host(tiles.items).tolist():
        for number in range(count):
            own.setdefault(first + number, []).append(partial + number)
    merged = {
        query: [first + step * number for number in range(count)]
        for query, (first, step, count) in enumerate(host(tiles.merges).tolist())
    }
    assert merged == {query: sorted(partials) for query, partials in own.items()}
    assert sorted(itertools.chain(*own.values())) == list(range(tiles.shape.partials))
    assert tiles.shape.items == len(tiles.items)


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_a_tile_has_rows_for_all_its_queries_and_no_more_than_registers_hold(
    scene: Scene, kind: Kind, programs: int
) -> None:
    current = begin(scene)
    shape = make_sheet(current, [kind], programs).tiles[kind].shape
    items = host(make_sheet(current, [kind], programs).tiles[kind].items)
    largest = max(len(places) for places, _ in connected(current.rows)) * kind.group
    assert (items[:, 1] > 0).all()
    assert (items[:, 1] * kind.group <= shape.rows).all()
    assert LEAST_ROWS <= shape.rows < 2 * max(largest, LEAST_ROWS)
    assert shape.rows & (shape.rows - 1) == 0
    if kind.group <= kind.most_rows:
        assert shape.rows <= kind.most_rows
    else:
        assert shape.rows < 2 * kind.group
        assert (items[:, 1] == 1).all()
    if largest <= kind.most_rows:
        tiles = {int(first) for first in items[:, 0]}
        assert len(tiles) == len(list(connected(current.rows))), "a tile holds a whole team"


def runs(items: Ints) -> list[list[int]]:
    """Lengths of the items that follow each other, by tile and extent of a block."""
    found: list[list[int]] = []
    following: tuple[int, ...] | None = None
    for first, count, slot, length, base, turn, _ in sorted(
        items.tolist(), key=lambda item: (item[0], item[5], item[4])
    ):
        if (first, turn, slot, base) != following:
            found.append([])
        found[-1].append(length)
        following = (first, turn, slot + length, base + length)
        assert count
    return found


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_work_is_cut_for_all_programs(scene: Scene, kind: Kind, programs: int) -> None:
    """No item is longer than a program's fair share, and none is cut without need."""
    items = host(make_sheet(begin(scene), [kind], programs).tiles[kind].items)
    lengths = items[:, 3]
    total = int(lengths.sum())
    share = max(1, math.ceil(math.ceil(total * kind.kv_heads / programs) / STEP)) * STEP
    assert (lengths > 0).all()
    assert lengths.max() <= share
    assert (np.diff(lengths) <= 0).all(), "the longest first"
    for run in runs(items):
        assert len(run) <= -(-sum(run) // share)
        assert all(length % STEP == 0 for length in run[:-1])


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_nothing_is_read_for_nobody(scene: Scene, kind: Kind, programs: int) -> None:
    """A tile of one worker reads nothing that none of its queries sees, nor beyond any block."""
    current = begin(scene)
    sheet = make_sheet(current, [kind], programs)
    queries = host(sheet.queries)
    place = sheet_meetings(sheet, kind) >> 48
    slot = (sheet_meetings(sheet, kind) >> 28) & (2**20 - 1)
    written = {int(s) for block, length in current.lengths.items() for s in block.slots(0, length)}
    for first, count, start, length, *_ in host(sheet.tiles[kind].items).tolist():
        read = set(range(start, start + length))
        assert read <= written
        mine = queries[first : first + count]
        if len(set(mine[:, 1].tolist())) == 1:
            assert read <= set(slot[np.isin(place, mine[:, 0])].tolist())


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=150)
def test_padding_changes_nothing_for_those_who_are_there(
    scene: Scene, kinds: list[Kind], programs: int
) -> None:
    """More queries that see nothing, each with a place of its own, and items that read nothing."""
    sheet = make_sheet(begin(scene), kinds, programs)
    padded = sheet.padded()
    tokens, turns = len(sheet.ids), len(sheet.turns)
    for name in ("ids", "positions", "slots", "last", "queries", "turns"):
        real, filled = host(getattr(sheet, name)), host(getattr(padded, name))
        assert np.array_equal(filled[: len(real)], real), name
    assert (host(padded.slots)[tokens:] == -1).all(), "it is written nowhere"
    assert sorted(host(padded.queries)[:, 0]) == list(range(len(padded.ids)))
    assert (host(padded.last) < len(padded.ids)).all()
    assert len(padded.ids) == len(padded.positions) == len(padded.slots) == len(padded.queries)
    assert len(padded.last) == len(padded.ids), "there may be as many workers as tokens"
    assert not host(padded.turns)[turns:].any()
    for kind in kinds:
        assert np.array_equal(sheet_meetings(padded, kind), sheet_meetings(sheet, kind))
        real, filled = sheet.tiles[kind], padded.tiles[kind]
        assert not host(filled.items)[real.shape.items :].any()
        assert np.array_equal(host(filled.merges)[:tokens], host(real.merges))
        assert not host(filled.merges)[tokens:].any(), "it sees nothing"
        assert filled.shape.items == len(filled.items)
        assert filled.shape.partials >= real.shape.partials
        assert filled.shape.rows == real.shape.rows


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=50)
def test_padding_twice_is_padding_once(scene: Scene, kinds: list[Kind], programs: int) -> None:
    """So that the shape of a padded sheet is one of few, whatever it was before."""
    padded = make_sheet(begin(scene), kinds, programs).padded()
    assert padded.padded().shape == padded.shape
    assert np.array_equal(padded.padded().numbers(), padded.numbers())
    sizes = {enough(count, least) for count in range(1, 10_000) for least in (1, 16, 32, 64)}
    shape = padded.shape
    tiles = [size for tile in shape.tiles for size in (tile.items, tile.partials)]
    assert {shape.tokens, shape.last, shape.turns, *tiles} <= sizes


@given(st.integers(1, 10**6), st.sampled_from([1, 16, 32, 64]))
def test_enough_is_enough_and_little_more(count: int, least: int) -> None:
    size = enough(count, least)
    assert size >= max(count, least)
    assert enough(size, least) == size
    if size > max(least, 2):
        assert size <= 1.5 * (count - 1), "the step below is too small"


@pytest.mark.parametrize("least", [1, 16, 32, 64])
def test_sizes_are_few(least: int) -> None:
    """Two for every doubling, each at most half as large again as the one before."""
    sizes = sorted({enough(count, least) for count in range(1, 2**14 + 1)})
    assert sizes[0] == least
    assert len(sizes) <= 2 * (14 - (least.bit_length() - 1)) + 1
    assert all(next_one <= max(1.5 * size, 2) for size, next_one in itertools.pairwise(sizes))


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=50)
def test_a_sheet_travels_as_one_row_of_numbers(
    scene: Scene, kinds: list[Kind], programs: int
) -> None:
    """Laid over its numbers it is the same sheet, and stays so when they are replaced."""
    current = begin(scene)
    sheet = make_sheet(current, kinds, programs)
    numbers = torch.from_numpy(sheet.numbers())
    laid = sheet.over(numbers)
    assert laid.shape == sheet.shape
    check_same(laid, sheet)
    numbers += 1
    check_same(laid, sheet, added=1)


def check_same(laid: AttentionMetadata, sheet: AttentionMetadata, added: int = 0) -> None:
    """Asserts that all numbers of two sheets agree, but for what was added to each."""
    for name in ("ids", "positions", "slots", "last", "queries", "turns"):
        part = getattr(laid, name)
        assert isinstance(part, Tensor)
        assert np.array_equal(part.numpy(), host(getattr(sheet, name)) + added), name
    assert list(laid.tiles) == list(sheet.tiles)
    for kind, tiles in laid.tiles.items():
        same = sheet.tiles[kind]
        for part, expected in ((tiles.items, same.items), (tiles.merges, same.merges)):
            assert isinstance(part, Tensor)
            assert np.array_equal(part.numpy(), host(expected) + added)
        assert tiles.shape == same.shape


def test_parts_have_the_widths_that_kernels_count_on() -> None:
    current = begin(Scene(2, (Grow(0, 40),), (Writer((0, 1), 3),)))
    kind = Kind(None, 2, 2, 128)
    sheet = make_sheet(current, [kind], 8)
    assert host(sheet.queries).shape[1] == QUERY == 3
    assert host(sheet.turns).shape[1] == TURN == 3
    assert host(sheet.tiles[kind].items).shape[1] == ITEM == 7
    assert host(sheet.tiles[kind].merges).shape[1] == MERGE == 3


def test_a_decoding_team_reads_every_token_once() -> None:
    """However many workers it has: that is what makes a tile worth while."""
    past = (Grow(0, 170), Grow(1, 20), Grow(2, 33), Grow(3, 5))
    views = ((0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1))
    current = begin(Scene(4, past, tuple(Writer(view, 1) for view in views)))
    kind = Kind(None, 4, 2, 128)
    for programs in (1, 10**6):
        items = host(make_sheet(current, [kind], programs).tiles[kind].items)
        assert items[:, 3].sum() == 170 + 21 + 34 + 6
        assert (items[:, 1] == 3).all()


def test_layers_share_tiles_if_they_read_alike() -> None:
    """Windows, groups, heads and what fits into registers make a kind; sizes alone do not."""
    layer = Layer(0, 8, 2, 128, 128, no_rotation(128), None)
    kind = kind_of(layer)
    assert kind == Kind(None, 4, 2, 128)
    assert kind_of(replace(layer, index=1, key_dim=64, value_dim=64)) == kind
    assert kind_of(replace(layer, window=7)).window == 7
    assert kind_of(replace(layer, kv_heads=8)) == Kind(None, 1, 8, 128)
    for dim, rows in ((129, 64), (192, 64), (193, 32), (256, 32)):
        assert kind_of(replace(layer, key_dim=dim)).most_rows == rows
