"""Attention over blocks in plain torch: the reference, and the backend for CPUs.

A block stands at a different place in each worker's view. So each query is rotated once per block,
by the difference between the starts of its own block and of this one; then one softmax runs over
all blocks. `partition.py` decides what is read in place and what is gathered. Small components of
equal shape are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hogwild_agents.engine.attention.interface import Pass, Scoring
from hogwild_agents.engine.attention.partition import (
    Component,
    GatheredPage,
    Ints,
    connected_rows,
    plan_component,
    visible_bounds,
)
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation

MIN_RUN_BYTES = 2**18
"""Size of a run in one layer from which reading it in place is faster than a gather (measured)."""

MAX_SCORES = 2**19
"""Scores computed at a time: 2 MiB in float32, which stays in a CPU's cache (measured). More are
computed in chunks of heads and of queries, so the scores of a long prompt never exist at once."""

FEW_QUERIES = 8
"""Below this many queries per key/value head, keys @ queries reads a long run faster than
queries @ keys (measured)."""


class TorchAttention:
    """This backend, prepared for one pass; an `Attention`."""

    def __init__(self, current: Pass) -> None:
        self._pass = current
        self._slot_mapping = current.pool.tensor(current.slot_mapping)
        self._components = list(connected_rows(current.rows))
        self._batches: dict[int | None, list[ComponentBatch]] = {}

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes, then reads; see `Attention`."""
        pool = self._pass.pool
        pool.put(pool.keys[layer.index], self._slot_mapping, key)
        pool.put(pool.values[layer.index], self._slot_mapping, value)
        batches = self._batches.get(layer.window)
        if batches is None:
            batches = self._batches[layer.window] = self._batch_components(layer.window)
        if len(batches) == 1 and batches[0].in_order:
            return batches[0].attend(layer, query, scoring)
        out = value.new_empty(query.shape[1], layer.heads, layer.value_dim)
        for batch in batches:
            batch_query = query.index_select(1, batch.tokens)
            out[batch.tokens] = batch.attend(layer, batch_query, scoring)
        return out

    def _batch_components(self, window: int | None) -> list[ComponentBatch]:
        pool = self._pass.pool
        batches: list[ComponentBatch] = []
        by_size: dict[tuple[int, int], list[Component]] = {}
        min_run = MIN_RUN_BYTES // pool.key_bytes_per_layer
        for tokens, rows in self._components:
            component = plan_component(self._pass, tokens, rows, window, min_run)
            if component.runs:
                batches.append(ComponentBatch(self._pass, [component], window))
            else:
                pages = 1 << (len(component.pages) - 1).bit_length()
                by_size.setdefault((len(tokens), pages), []).append(component)
        for (queries, pages), components in by_size.items():
            size = max(1, MAX_SCORES // (queries * pages * PAGE * pool.max_heads))
            batches.extend(
                ComponentBatch(self._pass, components[at : at + size], window)
                for at in range(0, len(components), size)
            )
        return batches


class ComponentBatch:
    """Components of equal shape, prepared for every layer of one window.

    A component that reads runs is a batch by itself.

    Args:
        current: The pass.
        components: One or more, with equally many queries each.
        window: Window of the layers.
    """

    def __init__(self, current: Pass, components: Sequence[Component], window: int | None) -> None:
        self._pool = current.pool
        self._components = len(components)
        self._queries = len(components[0].tokens)  # of each component
        self._runs = components[0].runs
        self._pages = max(len(component.pages) for component in components)  # of each component
        tokens = np.concatenate([component.tokens for component in components])
        self.in_order = bool((tokens == np.arange(len(tokens))).all())
        self.tokens = self._tensor(tokens)
        # One shift per placement: component, block and row. Runs and pages refer to theirs.
        self._shifts = np.concatenate([component.shifts.ravel() for component in components])
        self._unshifted = not self._shifts.any()  # every block begins where the own block does
        self._tables: dict[tuple[Rotation, float], RotationTables] = {}
        rows_of = [
            np.repeat(np.arange(len(component.rows)), [row.count for row in component.rows])
            for component in components
        ]
        uniform = all(component.uniform for component in components)
        bounds = None if uniform else [visible_bounds(current, c, window) for c in components]
        self._partly_hidden = bounds is not None
        self._prepare_runs(components[0], rows_of[0], bounds)
        self._prepare_pages(components, rows_of, bounds)

    def _prepare_runs(
        self, component: Component, row_of: Ints, bounds: list[tuple[Ints, Ints]] | None
    ) -> None:
        blocks = np.array([run.block for run in component.runs], np.int64)
        placements = (blocks[:, None] * len(component.rows) + row_of).ravel()
        self._run_placements = self._tensor(placements)
        self._hidden_runs: list[Tensor | None] = [None] * len(blocks)
        """For each run, the queries that do not see it: bool [queries, 1]; None if all do."""
        if bounds is not None:
            _, upper = bounds[0]
            self._hidden_runs = [
                None if (upper[block] > 0).all() else self._tensor(upper[block, :, None] == 0)
                for block in blocks
            ]

    def _prepare_pages(
        self,
        components: Sequence[Component],
        rows_of: Sequence[Ints],
        bounds: list[tuple[Ints, Ints]] | None,
    ) -> None:
        pages = [  # components with fewer pages repeat their first page and see nothing of it
            component.pages
            + [component.pages[0]._replace(stop=0)] * (self._pages - len(component.pages))
            if component.pages
            else []
            for component in components
        ]
        table = np.array(pages, np.int64)
        table = table.reshape(self._components, self._pages, len(GatheredPage._fields))
        blocks, page_ids, base, start, stop = (table[:, :, column] for column in range(5))
        self._page_ids = self._tensor(page_ids.ravel())
        offsets = np.cumsum([0, *(component.shifts.size for component in components)])
        placements = [
            offsets[index] + blocks[index, :, None] * len(component.rows) + rows_of[index]
            for index, component in enumerate(components)
        ]
        self._page_placements = self._tensor(np.concatenate(placements).ravel())
        # Block-local positions: [components, 1, pages, PAGE]
        position = base[:, None, :, None] + np.arange(PAGE)
        visible = (position >= start[:, None, :, None]) & (position < stop[:, None, :, None])
        if bounds is not None:
            lower, upper = (  # [components, queries, pages]
                np.stack([pair[side][blocks[index]].T for index, pair in enumerate(bounds)])
                for side in (0, 1)
            )
            visible = visible & (position < upper[..., None]) & (position > lower[..., None])
        shape = self._components, 1, visible.shape[1], self._pages * PAGE
        self._hidden_pages = self._tensor(~visible).reshape(shape)

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._pool.device)

    def attend(self, layer: Layer, query: Tensor, scoring: Scoring) -> Tensor:
        """Attention of the batch's queries.

        Args:
            layer: The layer that calls.
            query: [heads, queries of all components, key_dim].
            scoring: What the layer does to its scores.

        Returns:
            [queries of all components, heads, value_dim].
        """
        dtype = query.dtype
        # [kv_heads, components, heads per kv_head, queries, key_dim]; rotating needs float32
        query = (
            query.float()
            .reshape(layer.kv_heads, -1, self._components, self._queries, layer.key_dim)
            .transpose(1, 2)
        )
        keys, values = self._pool.keys[layer.index], self._pool.values[layer.index]
        page_keys, page_values = self._gather(keys, dtype), self._gather(values, dtype)
        if self._partly_hidden and page_values is not None:
            # What a query does not see has the weight 0, and 0 x NaN would be NaN.
            page_values.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        cached = CachedStates(keys, values, page_keys, page_values, dtype)
        heads, queries = self._chunk_size(layer)
        if heads == layer.kv_heads and queries == self._queries:
            out = self._attend_chunk(layer, query, None, cached, scoring)
        else:
            out = query.new_empty(*query.shape[:-1], layer.value_dim, dtype=dtype)
            for head in range(0, layer.kv_heads, heads):
                chunk_heads = slice(head, head + heads)
                chunk_scoring, chunk_cached = scoring, cached.of_heads(chunk_heads)
                if scoring.sinks is not None:
                    sinks = scoring.sinks.view(layer.kv_heads, -1)[chunk_heads]
                    chunk_scoring = scoring._replace(sinks=sinks)
                for start in range(0, self._queries, queries):
                    chunk = slice(start, start + queries)
                    out[chunk_heads, :, :, chunk] = self._attend_chunk(
                        layer, query[chunk_heads, :, :, chunk], chunk, chunk_cached, chunk_scoring
                    )
        return out.permute(1, 3, 0, 2, 4).reshape(-1, layer.heads, layer.value_dim)

    def _chunk_size(self, layer: Layer) -> tuple[int, int]:
        """How many key/value heads, and queries of each component, to compute at a time."""
        columns = sum(run.stop - run.start for run in self._runs)
        columns += self._pages * PAGE
        rotated = (len(self._runs) + self._pages) * layer.key_dim
        group = layer.heads // layer.kv_heads
        rows = MAX_SCORES // (max(columns, rotated) * self._components * group)
        heads = min(max(1, rows // self._queries), layer.kv_heads)
        return heads, min(max(1, rows // heads), self._queries)

    def _gather(self, storage: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The batch's pages of keys or values: [kv_heads, components, pages * PAGE, dim]."""
        if not self._pages:
            return None
        heads, _, dim = storage.shape
        pages = storage.view(heads, -1, PAGE, dim).index_select(1, self._page_ids).to(dtype)
        return pages.view(heads, self._components, -1, dim)

    def _attend_chunk(
        self,
        layer: Layer,
        query: Tensor,
        chunk: slice | None,
        cached: CachedStates,
        scoring: Scoring,
    ) -> Tensor:
        """Attention of some heads, and of the queries in `chunk` (of all if None)."""
        scores = self._scores(layer, query, chunk, cached, scoring.scaling)
        if scoring.softcap is not None:
            scores = scores.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
        self._mask(scores, chunk)
        weights = _softmax(scores, scoring.sinks).to(cached.dtype)
        return self._weighted_values(weights, cached)

    def _scores(
        self,
        layer: Layer,
        query: Tensor,
        chunk: slice | None,
        cached: CachedStates,
        scaling: float,
    ) -> Tensor:
        """Scores: [kv_heads, components, group, queries, columns].

        Columns are the slots of the runs, one run after the other, and then those of the pages.
        """
        heads, components, group, queries, dim = query.shape
        dtype = cached.dtype
        rotate = not (self._unshifted or layer.rotation.nope)
        parts = []
        if rotate:
            tables = self._tables_for(layer.rotation, scaling)
            partner = query.index_select(-1, layer.rotation.partner)
        else:
            flat = (query * scaling).to(dtype).reshape(heads * components, group * queries, dim)
        for index, run in enumerate(self._runs):
            if rotate:
                cos = _of_queries(chunk, tables.run_cos[index])
                sin = _of_queries(chunk, tables.run_sin[index])
                rotated = torch.addcmul(partner * sin, query, cos).to(dtype)
                flat = rotated.reshape(heads, group * queries, dim)
            run_keys = cached.keys[:, run.start : run.stop].to(dtype)
            parts.append(_products(flat, run_keys))
        if cached.page_keys is not None and not rotate:
            parts.append(_products(flat, cached.page_keys.flatten(0, 1)))
        elif cached.page_keys is not None:
            # Queries rotated for every page: [kv_heads, components, pages, group, queries, dim]
            cos = _of_queries(chunk, tables.page_cos)
            sin = _of_queries(chunk, tables.page_sin)
            rotated = torch.addcmul(partner[:, :, None] * sin, query[:, :, None], cos)
            rotated = rotated.to(dtype).reshape(-1, group * queries, dim)
            products = torch.bmm(rotated, cached.page_keys.view(-1, PAGE, dim).transpose(1, 2))
            products = products.view(heads * components, self._pages, -1, PAGE).transpose(1, 2)
            parts.append(products.reshape(heads * components, group * queries, -1))
        scores = torch.cat(parts, -1) if len(parts) > 1 else parts[0].contiguous()
        return scores.view(heads, components, group, queries, -1)

    def _tables_for(self, rotation: Rotation, scaling: float) -> RotationTables:
        """Cosines and sines for every run and page, computed once per pass."""
        tables = self._tables.get((rotation, scaling))
        if tables is None:
            table = rotation.table(self._shifts).mul_(scaling).to(self._pool.device)
            shape = self._queries, table.shape[-1]
            tables = self._tables[rotation, scaling] = RotationTables(
                *table.index_select(1, self._run_placements).view(2, -1, *shape),
                *table.index_select(1, self._page_placements).view(
                    2, self._components, self._pages, 1, *shape
                ),
            )
        return tables

    def _mask(self, scores: Tensor, chunk: slice | None) -> None:
        """Sets the scores of slots that a query does not see to minus infinity."""
        at = 0
        for run, hidden in zip(self._runs, self._hidden_runs, strict=True):
            stop = at + run.stop - run.start
            if hidden is not None:
                scores[..., at:stop].masked_fill_(_of_queries(chunk, hidden), -torch.inf)
            at = stop
        if self._pages:
            hidden = self._hidden_pages
            if hidden.shape[2] > 1:  # else it is the same for all queries
                hidden = _of_queries(chunk, hidden)
            scores[..., at:].masked_fill_(hidden, -torch.inf)

    def _weighted_values(self, weights: Tensor, cached: CachedStates) -> Tensor:
        """Weights times values: [kv_heads, components, group, queries, value_dim]."""
        shape = weights.shape[:-1]
        weights = weights.view(shape[0] * shape[1], -1, weights.shape[-1])
        out: Tensor | None = None
        at = 0
        for run in self._runs:
            stop = at + run.stop - run.start
            run_values = cached.values[:, run.start : run.stop].to(cached.dtype)
            out = _add_product(out, weights[..., at:stop], run_values)
            at = stop
        if cached.page_values is not None:
            out = _add_product(out, weights[..., at:], cached.page_values.flatten(0, 1))
        assert out is not None  # a query sees at least itself
        return out.view(*shape, -1)


class CachedStates(NamedTuple):
    """Keys and values of one layer: all slots as stored, and a batch's pages in `dtype`."""

    keys: Tensor  # [kv_heads, slots, key_dim]
    values: Tensor  # [kv_heads, slots, value_dim]
    page_keys: Tensor | None  # [kv_heads, components, pages * PAGE, key_dim]
    page_values: Tensor | None  # [kv_heads, components, pages * PAGE, value_dim]
    dtype: torch.dtype  # to compute with

    def of_heads(self, heads: slice) -> CachedStates:
        """The same for some key/value heads."""
        keys, values, page_keys, page_values, dtype = self
        return CachedStates(
            keys[heads],
            values[heads],
            None if page_keys is None else page_keys[heads],
            None if page_values is None else page_values[heads],
            dtype,
        )


class RotationTables(NamedTuple):
    """Cosines and sines of a batch's shifts under one rotation, float32.

    The scale of the scores is multiplied in.
    """

    run_cos: Tensor  # [runs, queries, key_dim]
    run_sin: Tensor
    page_cos: Tensor  # [components, pages, 1, queries, key_dim]
    page_sin: Tensor


def _of_queries(chunk: slice | None, table: Tensor) -> Tensor:
    """The part of a table [..., queries, columns] for a chunk of queries; all of it if None."""
    return table if chunk is None else table[..., chunk, :]


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries [b, n, dim] @ keys [b, k, dim]^T: [b, n, k], in the order that is faster."""
    if queries.shape[1] < FEW_QUERIES:
        return torch.bmm(keys, queries.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(queries, keys.transpose(1, 2))


def _add_product(out: Tensor | None, weights: Tensor, values: Tensor) -> Tensor:
    return torch.bmm(weights, values) if out is None else torch.baddbmm(out, weights, values)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last dimension in float32; a sink takes its share and is dropped."""
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32)
    kv_heads, _, group, _, _ = scores.shape
    columns = sinks.to(scores.dtype).view(kv_heads, 1, group, 1, 1)
    columns = columns.expand(*scores.shape[:-1], 1)
    with_sink = torch.cat([scores, columns], -1).softmax(-1, dtype=torch.float32)
    return with_sink[..., :-1].contiguous()
