"""The attention metadata of a pass: all of it integers, which go to the device in one copy.

A *tile* is a few queries of one component: `queries x group` rows of a matrix product, where
`group` query heads share a key/value head. A *split* is a tile and a run of neighbouring slots of
one block that it reads. A kernel's program takes one split and one key/value head, so the keys and
values of a run are loaded once for all workers of a component. Each split gives one *partial
result* per query; those of a query are merged in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.attention.interface import Pass, Row
from hogwild_agents.engine.attention.partition import Ints, connected_rows, number_blocks
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.layers import Layer

MIN_ROWS = 16
"""Rows of a tile: tensor cores take no fewer."""

MAX_ROWS = {128: 128, 192: 64}
"""Rows of a tile, for key sizes up to these; 32 for larger ones. With more rows, registers spill on
sm_90, or a tile takes more shared memory than consumer cards have (99 KiB). Both were found by
compiling."""

BLOCK_N = 64
"""Slots that a program reads at a time; runs are cut at multiples of it."""


class LayerKind(NamedTuple):
    """What layers must have in common to share splits.

    Attributes:
        window: See `Layer`.
        group: Query heads per key/value head.
        kv_heads: Key/value heads, each of which is a program of its own.
        max_rows: The most rows of a tile that registers hold.
    """

    window: int | None
    group: int
    kv_heads: int
    max_rows: int


def layer_kind(layer: Layer) -> LayerKind:
    """The kind of a layer."""
    group = layer.heads // layer.kv_heads
    max_rows = next((rows for dim, rows in MAX_ROWS.items() if layer.key_dim <= dim), 32)
    return LayerKind(layer.window, group, layer.kv_heads, max_rows)


class Placement(NamedTuple):
    """A row of `AttentionMetadata.placements`: a block as one row of the component sees it.

    The row's query at `position` sees the block up to `limit + own * position`, exclusive.
    """

    shift: int
    """By how much the row's queries are rotated to meet the block."""
    limit: int
    """0 if the row does not see the block."""
    own: int
    """1 if the row writes to the block, else 0."""


class Split(NamedTuple):
    """A row of `KindMetadata.splits`."""

    query: int
    """The first query of the tile."""
    queries: int
    """How many queries the tile has."""
    slot: int
    """The first slot that is read."""
    length: int
    """How many slots are read; 0 for padding."""
    base: int
    """Block-local position of the first slot."""
    placement: int
    """The block's placement in the first row of the component; those of other rows follow."""
    partial: int
    """The partial result of the first query; those of other queries follow."""


class KindShape(NamedTuple):
    """Sizes of a `KindMetadata`: splits, partial results (one per split and query), tile rows."""

    splits: int
    partials: int
    rows: int


class MetadataShape(NamedTuple):
    """Sizes of an `AttentionMetadata`. Passes of one shape may share a CUDA graph."""

    tokens: int
    logits_indices: int
    placements: int
    kinds: tuple[KindShape, ...]


class KindMetadata(NamedTuple):
    """What layers of one kind read in a pass.

    Attributes:
        splits: [splits, 7], see `Split`.
        merges: [tokens, 3], for each query: its first partial result, the step from each of its
            partial results to the next, and how many there are.
        shape: The sizes.
    """

    splits: Ints | Tensor
    merges: Ints | Tensor
    shape: KindShape


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """A pass in int64 arrays, on the host or on the device.

    Attributes:
        input_ids: [tokens].
        positions: [tokens], block-local.
        slot_mapping: [tokens], the slots of the new keys and values; -1 for padding, which is not
            written.
        logits_indices: [rows], each row's last token.
        queries: [tokens, 3], component after component: the index of a new token among the packed
            tokens, the row that it belongs to (counted within the component), and its block-local
            position.
        placements: [placements, 3], see `Placement`; for every block of a component and every row.
        kinds: What the layers of each kind read.
    """

    input_ids: Ints | Tensor
    positions: Ints | Tensor
    slot_mapping: Ints | Tensor
    logits_indices: Ints | Tensor
    queries: Ints | Tensor
    placements: Ints | Tensor
    kinds: dict[LayerKind, KindMetadata]

    @property
    def shape(self) -> MetadataShape:
        """The sizes of all parts."""
        kinds = tuple(metadata.shape for metadata in self.kinds.values())
        return MetadataShape(
            len(self.input_ids), len(self.logits_indices), len(self.placements), kinds
        )

    def _parts(self) -> Iterator[Ints | Tensor]:
        yield from (self.input_ids, self.positions, self.slot_mapping, self.logits_indices)
        yield from (self.queries, self.placements)
        for metadata in self.kinds.values():
            yield from (metadata.splits, metadata.merges)

    def flatten(self) -> Ints:
        """All parts in one array, one after the other; only on the host."""
        return np.concatenate([np.ravel(part) for part in self._parts()])

    def unflatten(self, buffer: Tensor) -> AttentionMetadata:
        """Metadata of the same sizes whose parts are views of `buffer`, on any device."""
        sizes = [part.shape for part in self._parts()]
        parts = torch.split(buffer, [int(np.prod(size)) for size in sizes])
        input_ids, positions, slot_mapping, logits_indices, queries, placements, *tables = (
            part.view(size) for part, size in zip(parts, sizes, strict=True)
        )
        kinds = {
            kind: KindMetadata(tables[2 * index], tables[2 * index + 1], metadata.shape)
            for index, (kind, metadata) in enumerate(self.kinds.items())
        }
        return AttentionMetadata(
            input_ids, positions, slot_mapping, logits_indices, queries, placements, kinds
        )

    def padded(self) -> AttentionMetadata:
        """The same on the host, padded to one of few shapes with tokens that nothing sees."""
        count = len(self.input_ids)
        tokens = padded_size(count, 1)
        queries = _pad(self.queries, tokens)
        queries[count:, 0] = np.arange(count, tokens)
        return AttentionMetadata(
            _pad(self.input_ids, tokens),
            _pad(self.positions, tokens),
            _pad(self.slot_mapping, tokens, -1),
            _pad(self.logits_indices, tokens),
            queries,
            _pad(self.placements, padded_size(len(self.placements), 32)),
            {kind: _padded_kind(metadata, tokens) for kind, metadata in self.kinds.items()},
        )


def padded_size(count: int, minimum: int) -> int:
    """`count` rounded up to a power of two or half-way to the next one, so that sizes are few."""
    size = minimum
    while size < count:
        if size >= 2 and size * 3 // 2 >= count:
            return size * 3 // 2
        size *= 2
    return size


def _padded_kind(metadata: KindMetadata, tokens: int) -> KindMetadata:
    shape = metadata.shape._replace(
        splits=padded_size(metadata.shape.splits, 16),
        partials=padded_size(metadata.shape.partials, 64),
    )
    return KindMetadata(_pad(metadata.splits, shape.splits), _pad(metadata.merges, tokens), shape)


def _pad(part: Ints | Tensor, count: int, value: int = 0) -> Ints:
    padded = np.full((count, *part.shape[1:]), value, np.int64)
    padded[: len(part)] = part
    return padded


class _PackedComponent(NamedTuple):
    """The rows of a component, and where its queries and placements begin in the metadata."""

    rows: Sequence[Row]
    first_query: int
    first_placement: int
    block_index: dict[CacheBlock, int]

    @property
    def queries(self) -> int:
        return sum(row.count for row in self.rows)


def build_metadata(current: Pass, kinds: Sequence[LayerKind], programs: int) -> AttentionMetadata:
    """The metadata of a pass.

    Args:
        current: The pass.
        kinds: The kinds of the model's layers.
        programs: How many programs fill the device.
    """
    queries: list[Ints] = []
    placements: list[Placement] = []
    components: list[_PackedComponent] = []
    first_query = 0
    for tokens, rows in connected_rows(current.rows):
        block_index = number_blocks(rows)
        components.append(_PackedComponent(rows, first_query, len(placements), block_index))
        placements += _placements(current, rows, block_index)
        row_of = np.repeat(np.arange(len(rows)), [row.count for row in rows])
        positions = np.concatenate([np.arange(r.position, r.position + r.count) for r in rows])
        queries.append(np.stack([tokens, row_of, positions], -1))
        first_query += len(tokens)
    return AttentionMetadata(
        current.input_ids,
        current.positions,
        current.slot_mapping,
        current.logits_indices,
        np.concatenate(queries),
        np.array(placements, np.int64),
        {kind: _build_kind(current, components, kind, programs) for kind in kinds},
    )


def _placements(
    current: Pass, rows: Sequence[Row], block_index: dict[CacheBlock, int]
) -> list[Placement]:
    """The placements of each block, for each row."""
    placements = [Placement(0, 0, 0)] * (len(block_index) * len(rows))
    for index, row in enumerate(rows):
        own_start = row.starts[-1]
        for block, start in zip(row.view, row.starts, strict=True):
            placements[block_index[block] * len(rows) + index] = Placement(
                own_start - start, current.lengths[block], 0
            )
        placements[block_index[row.view[-1]] * len(rows) + index] = Placement(0, 1, 1)
    return placements


def _build_kind(
    current: Pass, components: Sequence[_PackedComponent], kind: LayerKind, programs: int
) -> KindMetadata:
    largest = max(component.queries for component in components)
    needed = min(largest * kind.group, max(kind.max_rows, kind.group))
    rows = max(MIN_ROWS, 1 << (needed - 1).bit_length())
    per_tile = rows // kind.group
    tiles = [
        (component, start, min(per_tile, component.queries - start))
        for component in components
        for start in range(0, component.queries, per_tile)
    ]
    visible = [
        _visible_spans(current, component.rows, start, count, kind.window)
        for component, start, count in tiles
    ]
    total = sum(end - begin for spans in visible for begin, end in spans.values())
    longest = _round_up(-(-total * kind.kv_heads // programs))
    splits: list[Split] = []
    merges = np.empty((len(current.input_ids), 3), np.int64)
    partial = 0
    for (component, start, count), spans in zip(tiles, visible, strict=True):
        query, first_partial = component.first_query + start, partial
        for block, (begin, end) in spans.items():
            number = component.block_index[block]
            placement = component.first_placement + number * len(component.rows)
            for slot, length, base in _slot_runs(block, begin, end, longest):
                splits.append(Split(query, count, slot, length, base, placement, partial))
                partial += count
        tile_merges = merges[query : query + count]
        tile_merges[:, 0] = np.arange(first_partial, first_partial + count)
        tile_merges[:, 1:] = count, (partial - first_partial) // count
    splits.sort(key=lambda split: -split.length)  # the longest first, so that all end together
    return KindMetadata(np.array(splits, np.int64), merges, KindShape(len(splits), partial, rows))


def _visible_spans(
    current: Pass, rows: Sequence[Row], start: int, count: int, window: int | None
) -> dict[CacheBlock, tuple[int, int]]:
    """The positions of each block that the queries start..start+count of a component may see."""
    spans: dict[CacheBlock, tuple[int, int]] = {}
    at = 0
    for row in rows:
        low, high = max(start, at) - at, min(start + count, at + row.count) - at
        at += row.count
        if low >= high:
            continue
        own = row.view[-1]
        first, last = row.position + low, row.position + high - 1
        for block, block_start in zip(row.view, row.starts, strict=True):
            end = last + 1 if block is own else current.lengths[block]
            shift = row.starts[-1] - block_start
            begin = 0 if window is None else max(0, first + shift - window + 1)
            if begin < end:
                span = spans.get(block, (begin, end))
                spans[block] = min(begin, span[0]), max(end, span[1])
    return spans


def _slot_runs(
    block: CacheBlock, begin: int, end: int, longest: int
) -> Iterator[tuple[int, int, int]]:
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
    """`count` rounded up to a multiple of BLOCK_N, at least one."""
    return max(1, -(-count // BLOCK_N)) * BLOCK_N
