"""Attention metadata: every query meets every token that it sees once, at the right distance."""

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
from hogwild_agents.engine.attention.partition import connected_rows
from hogwild_agents.engine.attention.tiles import (
    BLOCK_N,
    MIN_ROWS,
    AttentionMetadata,
    KindMetadata,
    LayerKind,
    Split,
    build_metadata,
    layer_kind,
    padded_size,
)
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import no_rotation
from tests.unit.engine.attention.scenes import Grow, Scene, Stage, Writer, scenes

Ints: TypeAlias = npt.NDArray[np.int64]

COUNTS = (1, 1, 1, 2, 5, 17, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 1)

KINDS = st.builds(
    LayerKind,
    window=st.sampled_from([None, None, 1, 7, PAGE, 70]),
    group=st.sampled_from([1, 2, 4, 7, 71]),
    kv_heads=st.sampled_from([1, 2, 8]),
    max_rows=st.sampled_from([64, 128]),
)
ARRAYS = ("input_ids", "positions", "slot_mapping", "logits_indices", "queries", "placements")
PROGRAMS = st.sampled_from([1, 3, 8, 30, 400, 10**6])


def begin(scene: Scene) -> Pass:
    """A scene's pass over a tiny pool."""
    layer = Layer(0, 1, 1, 1, 1, no_rotation(1), None)
    return Stage(CachePool([layer], torch.float32, torch.device("cpu"), 2**16), scene).current


def splits_of(metadata: KindMetadata) -> list[Split]:
    """The splits of metadata on the host."""
    return [Split(*row) for row in host(metadata.splits).tolist()]


def host(part: Ints | Tensor) -> Ints:
    """A part of metadata on the host."""
    assert isinstance(part, np.ndarray)
    assert part.dtype == np.int64
    return part


def meetings(token: Ints, slot: Ints, distance: Ints) -> Ints:
    """Queries, the slots that they see, and the distances between them, as sorted numbers."""
    assert token.max(initial=0) < 2**14
    assert slot.max(initial=0) < 2**20
    assert 0 <= distance.min(initial=0) <= distance.max(initial=0) < 2**28
    return np.sort((token << 48) + (slot << 28) + distance)


def expected_meetings(current: Pass, window: int | None) -> Ints:
    """What each query sees by definition of a view, one query at a time."""
    tokens, slots, distances = [], [], []
    numbers = itertools.count()
    for row in current.rows:
        for position in range(row.position, row.position + row.count):
            number = next(numbers)
            query_position = row.starts[-1] + position
            for block, start in zip(row.view, row.starts, strict=True):
                own = block is row.view[-1]
                key_positions = np.arange(position + 1 if own else current.lengths[block])
                distance = query_position - (start + key_positions)
                visible = distance < (window or 2**40)
                slots.append(block.slots(0, len(key_positions))[visible])
                distances.append(distance[visible])
                tokens.append(np.full(len(slots[-1]), number))
    return meetings(*map(np.concatenate, (tokens, slots, distances)))


def metadata_meetings(metadata: AttentionMetadata, kind: LayerKind) -> Ints:
    """What each query sees by the rules of the kernels."""
    queries, placements = host(metadata.queries), host(metadata.placements)
    tokens, slots, distances = [np.empty(0, np.int64)], [], []
    for split in splits_of(metadata.kinds[kind]):
        number = np.arange(
            split.query, split.query + split.queries if split.length else split.query
        )
        token, row, position = queries[number].T
        shift, limit, own = placements[split.placement + row].T
        key_positions = split.base + np.arange(split.length)
        visible = key_positions < (limit + position * own)[:, None]
        if kind.window is not None:
            visible &= key_positions > (position + shift - kind.window)[:, None]
        query, offset = np.nonzero(visible)
        tokens.append(token[query])
        slots.append(split.slot + offset)
        distances.append((position + shift)[query] - key_positions[offset])
    return meetings(*map(np.concatenate, (tokens, slots, distances)))


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=250)
def test_every_query_meets_what_it_sees_once(
    scene: Scene, kinds: list[LayerKind], programs: int
) -> None:
    """At the right distance, whatever tile it is in; and nothing else."""
    current = begin(scene)
    metadata = build_metadata(current, kinds, programs)
    assert list(metadata.kinds) == kinds
    for kind in kinds:
        assert np.array_equal(
            metadata_meetings(metadata, kind), expected_meetings(current, kind.window)
        )


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_queries_are_the_new_tokens_component_by_component(
    scene: Scene, kind: LayerKind, programs: int
) -> None:
    current = begin(scene)
    metadata = build_metadata(current, [kind], programs)
    queries = host(metadata.queries)
    assert sorted(queries[:, 0]) == list(range(len(current.input_ids)))
    assert np.array_equal(queries[:, 2], current.positions[queries[:, 0]])
    component_of = {
        int(token): number
        for number, (tokens, _) in enumerate(connected_rows(current.rows))
        for token in tokens
    }
    components = [component_of[token] for token in queries[:, 0].tolist()]
    assert components == sorted(components)
    for split in splits_of(metadata.kinds[kind]):
        tile = components[split.query : split.query + split.queries]
        assert len(set(tile)) == 1, "a tile belongs to one component"
    assert np.array_equal(host(metadata.slot_mapping), current.slot_mapping)
    assert np.array_equal(host(metadata.input_ids), current.input_ids)
    assert np.array_equal(host(metadata.positions), current.positions)
    assert np.array_equal(host(metadata.logits_indices), current.logits_indices)


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_merges_name_the_partial_results_of_their_query(
    scene: Scene, kind: LayerKind, programs: int
) -> None:
    """No two splits share one, none is left out, and each query finds all of its own."""
    metadata = build_metadata(begin(scene), [kind], programs).kinds[kind]
    written: dict[int, list[int]] = {}
    for split in splits_of(metadata):
        for number in range(split.queries):
            written.setdefault(split.query + number, []).append(split.partial + number)
    merged = {
        query: [first + step * number for number in range(count)]
        for query, (first, step, count) in enumerate(host(metadata.merges).tolist())
    }
    assert merged == {query: sorted(partials) for query, partials in written.items()}
    assert sorted(itertools.chain(*written.values())) == list(range(metadata.shape.partials))
    assert metadata.shape.splits == len(metadata.splits)


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_a_tile_has_rows_for_all_its_queries_and_no_more_than_registers_hold(
    scene: Scene, kind: LayerKind, programs: int
) -> None:
    current = begin(scene)
    metadata = build_metadata(current, [kind], programs).kinds[kind]
    splits, shape = splits_of(metadata), metadata.shape
    components = list(connected_rows(current.rows))
    largest = max(len(tokens) for tokens, _ in components) * kind.group
    assert all(0 < split.queries * kind.group <= shape.rows for split in splits)
    assert MIN_ROWS <= shape.rows < 2 * max(largest, MIN_ROWS)
    assert shape.rows & (shape.rows - 1) == 0
    if kind.group <= kind.max_rows:
        assert shape.rows <= kind.max_rows
    else:
        assert shape.rows < 2 * kind.group
        assert all(split.queries == 1 for split in splits)
    if largest <= kind.max_rows:
        tiles = {split.query for split in splits}
        assert len(tiles) == len(components), "a tile holds a whole component"


def runs(splits: list[Split]) -> list[list[int]]:
    """Lengths of the splits that follow each other, by tile and extent of a block."""
    lengths: list[list[int]] = []
    following: tuple[int, ...] | None = None
    for split in sorted(splits, key=lambda split: (split.query, split.placement, split.base)):
        if (split.query, split.placement, split.slot, split.base) != following:
            lengths.append([])
        lengths[-1].append(split.length)
        end, end_base = split.slot + split.length, split.base + split.length
        following = (split.query, split.placement, end, end_base)
    return lengths


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_work_is_cut_for_all_programs(scene: Scene, kind: LayerKind, programs: int) -> None:
    """No split is longer than a program's fair share, and none is cut without need."""
    splits = splits_of(build_metadata(begin(scene), [kind], programs).kinds[kind])
    lengths = [split.length for split in splits]
    total = sum(lengths)
    share = max(1, math.ceil(math.ceil(total * kind.kv_heads / programs) / BLOCK_N)) * BLOCK_N
    assert min(lengths) > 0
    assert max(lengths) <= share
    assert lengths == sorted(lengths, reverse=True), "the longest first"
    for run in runs(splits):
        assert len(run) <= -(-sum(run) // share)
        assert all(length % BLOCK_N == 0 for length in run[:-1])


@given(scenes(COUNTS), KINDS, PROGRAMS)
@settings(max_examples=150)
def test_nothing_is_read_in_vain(scene: Scene, kind: LayerKind, programs: int) -> None:
    """A tile of one worker reads only what one of its queries sees; no tile reads past a block."""
    current = begin(scene)
    metadata = build_metadata(current, [kind], programs)
    queries = host(metadata.queries)
    token = metadata_meetings(metadata, kind) >> 48
    slot = (metadata_meetings(metadata, kind) >> 28) & (2**20 - 1)
    written = {int(s) for block, length in current.lengths.items() for s in block.slots(0, length)}
    for split in splits_of(metadata.kinds[kind]):
        read = set(range(split.slot, split.slot + split.length))
        assert read <= written
        tile = queries[split.query : split.query + split.queries]
        if len(set(tile[:, 1].tolist())) == 1:
            assert read <= set(slot[np.isin(token, tile[:, 0])].tolist())


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=150)
def test_padding_changes_nothing_for_real_tokens(
    scene: Scene, kinds: list[LayerKind], programs: int
) -> None:
    """It adds queries that see nothing, each with its own token, and splits that read nothing."""
    metadata = build_metadata(begin(scene), kinds, programs)
    padded = metadata.padded()
    tokens, placements = len(metadata.input_ids), len(metadata.placements)
    for name in ARRAYS:
        real, filled = host(getattr(metadata, name)), host(getattr(padded, name))
        assert np.array_equal(filled[: len(real)], real), name
    count = len(padded.input_ids)
    assert (host(padded.slot_mapping)[tokens:] == -1).all(), "padding is not written"
    assert sorted(host(padded.queries)[:, 0]) == list(range(count))
    assert (host(padded.logits_indices) < count).all()
    assert len(padded.positions) == len(padded.slot_mapping) == len(padded.queries) == count
    assert len(padded.logits_indices) == count, "there may be as many workers as tokens"
    assert not host(padded.placements)[placements:].any()
    for kind in kinds:
        assert np.array_equal(metadata_meetings(padded, kind), metadata_meetings(metadata, kind))
        unpadded, larger = metadata.kinds[kind], padded.kinds[kind]
        assert not host(larger.splits)[unpadded.shape.splits :].any()
        assert np.array_equal(host(larger.merges)[:tokens], host(unpadded.merges))
        assert not host(larger.merges)[tokens:].any(), "padding sees nothing"
        assert larger.shape.splits == len(larger.splits)
        assert larger.shape.partials >= unpadded.shape.partials
        assert larger.shape.rows == unpadded.shape.rows


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=50)
def test_padding_twice_is_padding_once(scene: Scene, kinds: list[LayerKind], programs: int) -> None:
    """So padded metadata has one of few shapes, whatever it was before."""
    padded = build_metadata(begin(scene), kinds, programs).padded()
    assert padded.padded().shape == padded.shape
    assert np.array_equal(padded.padded().flatten(), padded.flatten())
    sizes = {padded_size(count, least) for count in range(1, 10_000) for least in (1, 16, 32, 64)}
    shape = padded.shape
    kind_sizes = [size for kind in shape.kinds for size in (kind.splits, kind.partials)]
    assert {shape.tokens, shape.logits_indices, shape.placements, *kind_sizes} <= sizes


@given(st.integers(1, 10**6), st.sampled_from([1, 16, 32, 64]))
def test_a_padded_size_is_large_enough_and_little_more(count: int, least: int) -> None:
    size = padded_size(count, least)
    assert size >= max(count, least)
    assert padded_size(size, least) == size
    if size > max(least, 2):
        assert size <= 1.5 * (count - 1), "the step below is too small"


@pytest.mark.parametrize("least", [1, 16, 32, 64])
def test_sizes_are_few(least: int) -> None:
    """Two for every doubling, each at most 1.5 times the one before."""
    sizes = sorted({padded_size(count, least) for count in range(1, 2**14 + 1)})
    assert sizes[0] == least
    assert len(sizes) <= 2 * (14 - (least.bit_length() - 1)) + 1
    assert all(next_one <= max(1.5 * size, 2) for size, next_one in itertools.pairwise(sizes))


@given(scenes(COUNTS), st.lists(KINDS, min_size=1, max_size=3, unique=True), PROGRAMS)
@settings(max_examples=50)
def test_metadata_is_copied_as_one_array(
    scene: Scene, kinds: list[LayerKind], programs: int
) -> None:
    """Unflattened it is the same metadata, and its parts are views of the buffer."""
    current = begin(scene)
    metadata = build_metadata(current, kinds, programs)
    buffer = torch.from_numpy(metadata.flatten())
    views = metadata.unflatten(buffer)
    assert views.shape == metadata.shape
    check_same(views, metadata)
    buffer += 1
    check_same(views, metadata, added=1)


def check_same(views: AttentionMetadata, metadata: AttentionMetadata, added: int = 0) -> None:
    """Asserts that all numbers agree, except for what was added to each."""
    for name in ARRAYS:
        part = getattr(views, name)
        assert isinstance(part, Tensor)
        assert np.array_equal(part.numpy(), host(getattr(metadata, name)) + added), name
    assert list(views.kinds) == list(metadata.kinds)
    for kind, tables in views.kinds.items():
        expected = metadata.kinds[kind]
        for part, array in ((tables.splits, expected.splits), (tables.merges, expected.merges)):
            assert isinstance(part, Tensor)
            assert np.array_equal(part.numpy(), host(array) + added)
        assert tables.shape == expected.shape


def test_parts_have_the_widths_that_kernels_count_on() -> None:
    current = begin(Scene(2, (Grow(0, 40),), (Writer((0, 1), 3),)))
    kind = LayerKind(None, 2, 2, 128)
    metadata = build_metadata(current, [kind], 8)
    assert host(metadata.queries).shape[1] == 3
    assert host(metadata.placements).shape[1] == 3
    assert host(metadata.kinds[kind].splits).shape[1] == 7
    assert host(metadata.kinds[kind].merges).shape[1] == 3


def test_a_decode_pass_reads_every_token_once() -> None:
    """However many workers there are: this is the point of a tile."""
    past = (Grow(0, 170), Grow(1, 20), Grow(2, 33), Grow(3, 5))
    views = ((0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1))
    current = begin(Scene(4, past, tuple(Writer(view, 1) for view in views)))
    kind = LayerKind(None, 4, 2, 128)
    for programs in (1, 10**6):
        splits = splits_of(build_metadata(current, [kind], programs).kinds[kind])
        assert sum(split.length for split in splits) == 170 + 21 + 34 + 6
        assert all(split.queries == 3 for split in splits)


def test_layers_of_one_kind_read_alike() -> None:
    """Window, group, heads and what fits into registers make a kind; head sizes alone do not."""
    layer = Layer(0, 8, 2, 128, 128, no_rotation(128), None)
    kind = layer_kind(layer)
    assert kind == LayerKind(None, 4, 2, 128)
    assert layer_kind(replace(layer, index=1, key_dim=64, value_dim=64)) == kind
    assert layer_kind(replace(layer, window=7)).window == 7
    assert layer_kind(replace(layer, kv_heads=8)) == LayerKind(None, 1, 8, 128)
    for dim, rows in ((129, 64), (192, 64), (193, 32), (256, 32)):
        assert layer_kind(replace(layer, key_dim=dim)).max_rows == rows
