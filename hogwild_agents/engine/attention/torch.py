"""Attention over blocks in plain torch: the reference, and the backend for CPUs.

A key block stands at a different place in each worker's view, so each query is turned once per
block by the difference of the two starts; then one softmax runs over all blocks. `plan.py` tells
what is read in place and what is gathered. Small teams of equal shape are computed together.
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
    Ints,
    Page,
    connected,
    limits,
    plan_component,
)
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation

STRETCH_BYTES = 2**18
"""Size of a piece in one layer from which reading it in place beats gathering it (measured)."""

SCORE_ELEMENTS = 2**19
"""Scores held at a time: 2 MiB in float32, which stays in a CPU's cache (measured). More take
turns, by heads and then by queries, so that a long prompt's scores never exist all at once."""

FEW_QUERIES = 8
"""Below this many queries per key/value head, keys @ queries reads a long stretch faster than
queries @ keys (measured)."""


class TorchAttend:
    """This backend, prepared for one pass; an `Attend`."""

    def __init__(self, current: Pass) -> None:
        self._pass = current
        self._slots = current.pool.tensor(current.slots)
        self._teams = list(connected(current.rows))
        self._groups: dict[int | None, list[ComponentBatch]] = {}

    def __call__(
        self, layer: Layer, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Writes, then reads; see `Attend`."""
        pool = self._pass.pool
        pool.put(pool.keys[layer.index], self._slots, key)
        pool.put(pool.values[layer.index], self._slots, value)
        groups = self._groups.get(layer.window)
        if groups is None:
            groups = self._groups[layer.window] = self._prepare(layer.window)
        if len(groups) == 1 and groups[0].in_order:
            return groups[0].attend(layer, query, scoring)
        out = value.new_empty(query.shape[1], layer.heads, layer.value_dim)
        for group in groups:
            part = query.index_select(1, group.queries)
            out[group.queries] = group.attend(layer, part, scoring)
        return out

    def _prepare(self, window: int | None) -> list[ComponentBatch]:
        pool = self._pass.pool
        groups: list[ComponentBatch] = []
        alike: dict[tuple[int, int], list[Component]] = {}
        few = STRETCH_BYTES // pool.key_bytes_per_layer
        for places, rows in self._teams:
            team = plan_component(self._pass, places, rows, window, few)
            if team.stretches:
                groups.append(ComponentBatch(self._pass, [team], window))
            else:
                pages = 1 << (len(team.pages) - 1).bit_length()
                alike.setdefault((len(places), pages), []).append(team)
        for (queries, pages), teams in alike.items():
            most = max(1, SCORE_ELEMENTS // (queries * pages * PAGE * pool.max_heads))
            groups.extend(
                ComponentBatch(self._pass, teams[at : at + most], window)
                for at in range(0, len(teams), most)
            )
        return groups


class ComponentBatch:
    """Teams of equal shape, made ready for every layer of one window.

    A team that reads stretches is a group of its own.

    Args:
        current: The pass.
        teams: One or more, with as many queries each.
        window: Of the layers.
    """

    def __init__(self, current: Pass, teams: Sequence[Component], window: int | None) -> None:
        self._pool = current.pool
        self._teams = len(teams)
        self._size = len(teams[0].places)
        self._stretches = teams[0].stretches
        self._pages = max(len(team.pages) for team in teams)
        places = np.concatenate([team.places for team in teams])
        self.in_order = bool((places == np.arange(len(places))).all())
        self.queries = self._tensor(places)
        # Turns: one per team, block and row. Stretches and pages point to theirs.
        self._shifts = np.concatenate([team.shifts.ravel() for team in teams])
        self._straight = not self._shifts.any()  # every block begins where the own one does
        self._tables: dict[tuple[Rotation, float], Tables] = {}
        rows_of = [
            np.repeat(np.arange(len(team.rows)), [row.count for row in team.rows]) for team in teams
        ]
        alike = all(team.alike for team in teams)
        seen = None if alike else [limits(current, team, window) for team in teams]
        self._mixed = seen is not None
        self._prepare_stretches(teams[0], rows_of[0], seen)
        self._prepare_pages(teams, rows_of, seen)

    def _prepare_stretches(
        self, team: Component, row_of: Ints, seen: list[tuple[Ints, Ints]] | None
    ) -> None:
        blocks = np.array([stretch.block for stretch in team.stretches], np.int64)
        self._stretch_turns = self._tensor((blocks[:, None] * len(team.rows) + row_of).ravel())
        self._blind: list[Tensor | None] = [None] * len(blocks)
        if seen is not None:
            upto, _ = seen[0]
            self._blind = [
                None if (upto[block] > 0).all() else self._tensor(upto[block, :, None] == 0)
                for block in blocks
            ]

    def _prepare_pages(
        self,
        teams: Sequence[Component],
        rows_of: Sequence[Ints],
        seen: list[tuple[Ints, Ints]] | None,
    ) -> None:
        pages = [  # shorter teams repeat their first page and see nothing of it
            team.pages + [team.pages[0]._replace(last=0)] * (self._pages - len(team.pages))
            if team.pages
            else []
            for team in teams
        ]
        table = np.array(pages, np.int64).reshape(self._teams, self._pages, len(Page._fields))
        blocks, page_ids, base, first, last = (table[:, :, column] for column in range(5))
        self._page_ids = self._tensor(page_ids.ravel())
        offsets = np.cumsum([0, *(team.shifts.size for team in teams)])
        turns = [
            offsets[index] + blocks[index, :, None] * len(team.rows) + rows_of[index]
            for index, team in enumerate(teams)
        ]
        self._page_turns = self._tensor(np.concatenate(turns).ravel())
        at = base[:, None, :, None] + np.arange(PAGE)  # [teams, 1, pages, PAGE], block-local
        visible = (at >= first[:, None, :, None]) & (at < last[:, None, :, None])
        if seen is not None:
            upto, after = (  # [teams, queries, pages]
                np.stack([part[side][blocks[index]].T for index, part in enumerate(seen)])
                for side in (0, 1)
            )
            visible = visible & (at < upto[..., None]) & (at > after[..., None])
        shape = self._teams, 1, visible.shape[1], self._pages * PAGE
        self._unseen = self._tensor(~visible).reshape(shape)

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._pool.device)

    def attend(self, layer: Layer, query: Tensor, scoring: Scoring) -> Tensor:
        """Reads for the group's queries.

        Args:
            layer: The layer that asks.
            query: [heads, queries of all teams, key_dim].
            scoring: What the layer does to its scores.

        Returns:
            [queries of all teams, heads, value_dim].
        """
        dtype = query.dtype
        # [kv_heads, teams, heads per kv_head, queries, key_dim]; turning needs float32
        query = (
            query.float()
            .reshape(layer.kv_heads, -1, self._teams, self._size, layer.key_dim)
            .transpose(1, 2)
        )
        keys, values = self._pool.keys[layer.index], self._pool.values[layer.index]
        page_keys, page_values = self._gather(keys, dtype), self._gather(values, dtype)
        if self._mixed and page_values is not None:
            # A query gives what it does not see the weight 0, and 0 x NaN would be NaN.
            page_values.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        kept = Kept(keys, values, page_keys, page_values, dtype)
        heads, size = self._portion(layer)
        if heads == layer.kv_heads and size == self._size:
            out = self._read(layer, query, None, kept, scoring)
        else:
            out = query.new_empty(*query.shape[:-1], layer.value_dim, dtype=dtype)
            for head in range(0, layer.kv_heads, heads):
                some = slice(head, head + heads)
                own, kept_by = scoring, kept.of(some)
                if scoring.sinks is not None:
                    sinks = scoring.sinks.view(layer.kv_heads, -1)[some]
                    own = scoring._replace(sinks=sinks)
                for start in range(0, self._size, size):
                    part = slice(start, start + size)
                    asking = query[some, :, :, part]
                    out[some, :, :, part] = self._read(layer, asking, part, kept_by, own)
        return out.permute(1, 3, 0, 2, 4).reshape(-1, layer.heads, layer.value_dim)

    def _portion(self, layer: Layer) -> tuple[int, int]:
        """How many key/value heads, and queries of each team, to take at a time."""
        columns = sum(stretch.stop - stretch.start for stretch in self._stretches)
        columns += self._pages * PAGE
        turned = (len(self._stretches) + self._pages) * layer.key_dim
        group = layer.heads // layer.kv_heads
        rows = SCORE_ELEMENTS // (max(columns, turned) * self._teams * group)
        heads = min(max(1, rows // self._size), layer.kv_heads)
        return heads, min(max(1, rows // heads), self._size)

    def _gather(self, kept: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The group's pages of keys or values: [kv_heads, teams, pages * PAGE, dim]."""
        if not self._pages:
            return None
        heads, _, dim = kept.shape
        paged = kept.view(heads, -1, PAGE, dim).index_select(1, self._page_ids).to(dtype)
        return paged.view(heads, self._teams, -1, dim)

    def _read(
        self, layer: Layer, query: Tensor, part: slice | None, kept: Kept, scoring: Scoring
    ) -> Tensor:
        """Attention of some heads and of the queries in `part`, of all if None."""
        scores = self._scores(layer, query, part, kept, scoring.scaling)
        if scoring.softcap is not None:
            scores = scores.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
        self._hide_unseen(scores, part)
        return self._mix(_softmax(scores, scoring.sinks).to(kept.dtype), kept)

    def _scores(
        self, layer: Layer, query: Tensor, part: slice | None, kept: Kept, scaling: float
    ) -> Tensor:
        """Scores: [kv_heads, teams, group, queries, columns].

        Columns are the stretches, one after the other, and then the pages.
        """
        heads, teams, group, size, dim = query.shape
        dtype = kept.dtype
        straight = self._straight or layer.rotation.nope
        parts = []
        if straight:
            flat = (query * scaling).to(dtype).reshape(heads * teams, group * size, dim)
        else:
            tables = self._tables_for(layer.rotation, scaling)
            partner = query.index_select(-1, layer.rotation.partner)
        for index, stretch in enumerate(self._stretches):
            if not straight:
                cos, sin = _of(part, tables.cos[index]), _of(part, tables.sin[index])
                turned = torch.addcmul(partner * sin, query, cos).to(dtype)
                flat = turned.reshape(heads, group * size, dim)
            seen = kept.keys[:, stretch.start : stretch.stop].to(dtype)
            parts.append(_products(flat, seen))
        if kept.page_keys is not None and straight:
            parts.append(_products(flat, kept.page_keys.flatten(0, 1)))
        elif kept.page_keys is not None:
            # One turned copy of the queries per page: [kv_heads, teams, pages, group, queries, dim]
            cos, sin = _of(part, tables.page_cos), _of(part, tables.page_sin)
            turned = torch.addcmul(partner[:, :, None] * sin, query[:, :, None], cos)
            turned = turned.to(dtype).reshape(-1, group * size, dim)
            products = torch.bmm(turned, kept.page_keys.view(-1, PAGE, dim).transpose(1, 2))
            products = products.view(heads * teams, self._pages, -1, PAGE).transpose(1, 2)
            parts.append(products.reshape(heads * teams, group * size, -1))
        scores = torch.cat(parts, -1) if len(parts) > 1 else parts[0].contiguous()
        return scores.view(heads, teams, group, size, -1)

    def _tables_for(self, rotation: Rotation, scaling: float) -> Tables:
        """Angles of every stretch and page, made once per pass; the scores' scale goes along."""
        tables = self._tables.get((rotation, scaling))
        if tables is None:
            angles = rotation.table(self._shifts).mul_(scaling).to(self._pool.device)
            shape = self._size, angles.shape[-1]
            tables = self._tables[rotation, scaling] = Tables(
                *angles.index_select(1, self._stretch_turns).view(2, -1, *shape),
                *angles.index_select(1, self._page_turns).view(
                    2, self._teams, self._pages, 1, *shape
                ),
            )
        return tables

    def _hide_unseen(self, scores: Tensor, part: slice | None) -> None:
        at = 0
        for stretch, blind in zip(self._stretches, self._blind, strict=True):
            stop = at + stretch.stop - stretch.start
            if blind is not None:
                scores[..., at:stop].masked_fill_(_of(part, blind), -torch.inf)
            at = stop
        if self._pages:
            pages = scores[..., at:] if at else scores
            unseen = self._unseen
            pages.masked_fill_(unseen if unseen.shape[2] == 1 else _of(part, unseen), -torch.inf)

    def _mix(self, weights: Tensor, kept: Kept) -> Tensor:
        """Values weighted: [kv_heads, teams, group, queries, value_dim]."""
        shape = weights.shape[:-1]
        weights = weights.view(shape[0] * shape[1], -1, weights.shape[-1])
        out: Tensor | None = None
        at = 0
        for stretch in self._stretches:
            stop = at + stretch.stop - stretch.start
            seen = kept.values[:, stretch.start : stretch.stop].to(kept.dtype)
            out = _add_product(out, weights[..., at:stop], seen)
            at = stop
        if kept.page_values is not None:
            out = _add_product(out, weights[..., at:], kept.page_values.flatten(0, 1))
        assert out is not None  # a query sees at least itself
        return out.view(*shape, -1)


class Kept(NamedTuple):
    """Keys and values of one layer: all slots as stored, and the group's pages as computed with."""

    keys: Tensor  # [kv_heads, slots, key_dim]
    values: Tensor  # [kv_heads, slots, value_dim]
    page_keys: Tensor | None  # [kv_heads, teams, pages * PAGE, key_dim]
    page_values: Tensor | None  # [kv_heads, teams, pages * PAGE, value_dim]
    dtype: torch.dtype  # to compute with

    def of(self, heads: slice) -> Kept:
        """The same for some key/value heads."""
        keys, values, page_keys, page_values, dtype = self
        return Kept(
            keys[heads],
            values[heads],
            None if page_keys is None else page_keys[heads],
            None if page_values is None else page_values[heads],
            dtype,
        )


class Tables(NamedTuple):
    """Cosines and sines of a group's turns under one rotation, times the scores' scale, float32."""

    cos: Tensor  # [stretches, queries, key_dim]
    sin: Tensor
    page_cos: Tensor  # [teams, pages, 1, queries, key_dim]
    page_sin: Tensor


def _of(part: slice | None, table: Tensor) -> Tensor:
    """Some queries' part of a table [..., queries, columns]; all of it if None."""
    return table if part is None else table[..., part, :]


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries [b, n, dim] @ keys [b, k, dim]^T: [b, n, k], the faster way round for few queries."""
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
