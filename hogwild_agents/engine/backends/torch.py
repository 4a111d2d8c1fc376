"""Attention over blocks in plain torch: the reference, and the backend for CPUs.

A key block stands at a different place in each worker's view, so each query is turned once per block
by the difference of the two starts; then one softmax runs over all blocks. What a pass reads is cut
into two kinds of pieces:

- *stretches*: neighbouring slots that every query of the team sees. They are read in place, with no
  copy and no mask. At decoding nearly all of a long context is of this kind.
- *pages*: the rest (small blocks, new tokens under a causal mask, edges of windows) is gathered into
  one small tensor, whole pages with a mask, so that many small blocks cost as much as one.

Rows that share no block, directly or through others, are different *teams* and never meet in a score.
Small teams of equal shape are computed together, as one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hogwild_agents.engine.attention import Pass, Row
from hogwild_agents.engine.blocks import PAGE, Block, CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation

STRETCH_BYTES = 2**18
"""Size of a piece in one layer from which reading it in place beats gathering it (measured)."""

SCORE_ELEMENTS = 2**24
"""Scores held at a time, over all heads: 64 MiB in float32. More queries take several turns."""

FEW_QUERIES = 16
"""Below this many queries per key/value head, keys @ queries is faster than queries @ keys."""

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Stretch(NamedTuple):
    """The slots start..stop of one block."""

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


@dataclass(slots=True)
class Team:
    """What the rows that are connected through blocks read in layers of one window.

    Attributes:
        queries: [queries], their places in the packed row.
        shifts: [blocks, queries], by how much a query is turned to meet a block.
        upto: [blocks, queries], a query sees the block-local positions below this (0: none) ...
        after: [blocks, queries], ... and above this.
        stretches: Pieces read in place.
        pages: Pieces gathered.
    """

    queries: Ints
    shifts: Ints
    upto: Ints
    after: Ints
    stretches: list[Stretch]
    pages: list[Page]


class TorchAttend:
    """This backend, prepared for one pass; an `Attend`."""

    def __init__(self, current: Pass) -> None:
        self._pass = current
        self._teams = list(_connected(current.rows))
        self._groups: dict[int | None, list[Group]] = {}

    def __call__(
        self,
        layer: Layer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Writes, then reads; see `Attend`."""
        pool = self._pass.pool
        pool.keys[layer.index].index_copy_(1, self._pass.slots, key)
        pool.values[layer.index].index_copy_(1, self._pass.slots, value)
        groups = self._groups.get(layer.window)
        if groups is None:
            groups = self._groups[layer.window] = self._prepare(layer.window)
        if len(groups) == 1 and groups[0].in_order:
            return groups[0].attend(layer, query, scaling, softcap, sinks)
        out = value.new_empty(query.shape[1], layer.heads, layer.value_dim)
        for group in groups:
            part = query.index_select(1, group.queries)
            out[group.queries] = group.attend(layer, part, scaling, softcap, sinks)
        return out

    def _prepare(self, window: int | None) -> list[Group]:
        pool = self._pass.pool
        groups: list[Group] = []
        alike: dict[tuple[int, int], list[Team]] = {}
        for places, rows in self._teams:
            team = _plan(self._pass, places, rows, window)
            if team.stretches:
                groups.append(Group(pool, [team]))
            else:
                pages = 1 << (len(team.pages) - 1).bit_length()
                alike.setdefault((len(places), pages), []).append(team)
        for (queries, pages), teams in alike.items():
            most = max(1, SCORE_ELEMENTS // (queries * pages * PAGE * pool.most_heads))
            groups.extend(
                Group(pool, teams[at : at + most]) for at in range(0, len(teams), most)
            )
        return groups


class Group:
    """Teams of equal shape, made ready for every layer of one window.

    A team that reads stretches is a group of its own.

    Args:
        pool: The cache.
        teams: One or more, with as many queries each.
    """

    def __init__(self, pool: CachePool, teams: Sequence[Team]) -> None:
        places = np.concatenate([team.queries for team in teams])
        size = len(teams[0].queries)
        blocks = max(len(team.shifts) for team in teams)
        pages = max(len(team.pages) for team in teams)
        shifts = np.zeros((len(teams), blocks, size), np.int64)
        page_ids = np.zeros((len(teams), pages), np.int64)
        page_blocks = np.zeros((len(teams), pages), np.int64)
        seen = np.zeros((len(teams), size, pages, PAGE), np.bool_)
        for index, team in enumerate(teams):
            number = len(team.pages)
            shifts[index, : len(team.shifts)] = team.shifts
            page_ids[index, :number] = [page.page for page in team.pages]
            page_blocks[index, :number] = [page.block for page in team.pages]
            seen[index, :, :number] = _seen(team)

        def tensor(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(pool.device)

        self._pool = pool
        self._teams = len(teams)
        self._size = size
        self._stretches = teams[0].stretches
        self._pages = pages
        self._straight = not shifts.any()  # every block begins where the own one does
        self.in_order = bool((places == np.arange(len(places))).all())
        self.queries = tensor(places)
        self._page_ids = tensor(page_ids.ravel())
        flat_blocks = page_blocks + blocks * np.arange(len(teams))[:, None]
        self._page_blocks = tensor(flat_blocks.ravel())
        self._unseen = tensor(~seen.reshape(len(teams), 1, size, pages * PAGE))
        self._blind = [
            None if sees.all() else tensor(~sees[:, None])
            for sees in (teams[0].upto[stretch.block] > 0 for stretch in self._stretches)
        ]
        turns, turn_of = np.unique(shifts, return_inverse=True)
        self._turns, self._turn_of = torch.from_numpy(turns), tensor(turn_of.ravel())
        self._tables: dict[Rotation, Tables] = {}

    def attend(
        self,
        layer: Layer,
        query: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Reads for the group's queries.

        Args:
            layer: The layer that asks.
            query: [heads, queries of all teams, key_dim].
            scaling: Factor on the scores.
            softcap: Bound of the scores, or None.
            sinks: [heads] or None.

        Returns:
            [queries of all teams, heads, value_dim].
        """
        # [kv_heads, teams, heads per kv_head, queries, key_dim]; turning needs float32
        query = query.float().mul(scaling)
        query = query.reshape(layer.kv_heads, -1, self._teams, self._size, layer.key_dim)
        query = query.transpose(1, 2).contiguous()
        keys, values = self._pool.keys[layer.index], self._pool.values[layer.index]
        page_keys, page_values = self._gather(keys), self._gather(values)
        tile = self._tile(layer)
        parts = []
        for start in range(0, self._size, tile):
            part = slice(start, start + tile)
            scores = self._scores(layer, query[:, :, :, part], part, keys, page_keys)
            if softcap is not None:
                scores = scores.div_(softcap).tanh_().mul_(softcap)
            self._hide_unseen(scores, part)
            weights = _softmax(scores, sinks).to(values.dtype)
            parts.append(self._mix(weights, values, page_values))
        out = parts[0] if len(parts) == 1 else torch.cat(parts, 3)
        return out.permute(1, 3, 0, 2, 4).reshape(-1, layer.heads, layer.value_dim)

    def _gather(self, kept: Tensor) -> Tensor | None:
        """The group's pages of keys or values: [kv_heads * teams, pages * PAGE, dim]."""
        if not self._pages:
            return None
        heads, _, dim = kept.shape
        paged = kept.view(heads, -1, PAGE, dim).index_select(1, self._page_ids)
        return paged.view(heads * self._teams, -1, dim)

    def _tile(self, layer: Layer) -> int:
        """How many queries of a team to take at a time."""
        columns = sum(stretch.stop - stretch.start for stretch in self._stretches)
        columns += self._pages * PAGE
        turned = (len(self._stretches) + self._pages) * layer.key_dim
        return max(1, SCORE_ELEMENTS // (layer.heads * self._teams * max(columns, turned)))

    def _scores(
        self, layer: Layer, query: Tensor, part: slice, keys: Tensor, page_keys: Tensor | None
    ) -> Tensor:
        """Scores of the queries in `part`: [kv_heads, teams, group, queries, columns].

        Columns are the stretches, one after the other, and then the pages.
        """
        heads, teams, group, size, dim = query.shape
        dtype = keys.dtype
        straight = self._straight or layer.rotation.still
        if straight:
            flat = query.to(dtype).view(heads * teams, group * size, dim)
        else:
            partner = query.index_select(-1, layer.rotation.partner)
            tables = self._tables.get(layer.rotation)
            if tables is None:
                tables = self._tables[layer.rotation] = self._turn_tables(layer.rotation)
        parts = []
        for stretch in self._stretches:
            if not straight:
                cos, sin = tables.cos[stretch.block, part], tables.sin[stretch.block, part]
                flat = torch.addcmul(query * cos, partner, sin).to(dtype).view(heads, -1, dim)
            parts.append(_products(flat, keys[:, stretch.start : stretch.stop]))
        if page_keys is not None and straight:
            parts.append(_products(flat, page_keys))
        elif page_keys is not None:
            # One turned copy of the queries per page: [kv_heads, teams, pages, group, queries, dim]
            cos, sin = tables.page_cos[:, :, :, part], tables.page_sin[:, :, :, part]
            turned = torch.addcmul(query[:, :, None] * cos, partner[:, :, None], sin).to(dtype)
            products = torch.bmm(
                page_keys.view(-1, PAGE, dim), turned.view(-1, group * size, dim).transpose(1, 2)
            )
            products = products.view(heads * teams, self._pages, PAGE, -1).permute(0, 3, 1, 2)
            parts.append(products.reshape(heads * teams, group * size, -1))
        scores = torch.cat(parts, -1) if len(parts) > 1 else parts[0].contiguous()
        return scores.view(heads, teams, group, size, -1)

    def _turn_tables(self, rotation: Rotation) -> Tables:
        table = rotation.table(self._turns)  # few distinct turns; then one row per block and query
        cos, sin = (
            half.to(self._turn_of.device)
            .index_select(0, self._turn_of)
            .view(-1, self._size, half.shape[-1])
            for half in table
        )
        paged = (self._teams, self._pages, 1, self._size, cos.shape[-1])
        page_cos, page_sin = cos[self._page_blocks].view(paged), sin[self._page_blocks].view(paged)
        return Tables(cos, sin, page_cos, page_sin)

    def _hide_unseen(self, scores: Tensor, part: slice) -> None:
        at = 0
        for stretch, blind in zip(self._stretches, self._blind, strict=True):
            stop = at + stretch.stop - stretch.start
            if blind is not None:
                scores[..., at:stop].masked_fill_(blind[part], -torch.inf)
            at = stop
        if self._pages:
            scores[..., at:].masked_fill_(self._unseen[:, :, part], -torch.inf)

    def _mix(self, weights: Tensor, values: Tensor, page_values: Tensor | None) -> Tensor:
        """Values weighted: [kv_heads, teams, group, queries, value_dim]."""
        shape = weights.shape[:-1]
        weights = weights.view(shape[0] * shape[1], -1, weights.shape[-1])
        out: Tensor | None = None
        at = 0
        for stretch in self._stretches:
            stop = at + stretch.stop - stretch.start
            out = _add_product(out, weights[..., at:stop], values[:, stretch.start : stretch.stop])
            at = stop
        if page_values is not None:
            out = _add_product(out, weights[..., at:], page_values)
        assert out is not None  # a query sees at least itself
        return out.view(*shape, -1)


class Tables(NamedTuple):
    """Cosines and sines of a group's turns under one rotation, float32."""

    cos: Tensor  # [teams * blocks, queries, key_dim]
    sin: Tensor
    page_cos: Tensor  # [teams, pages, 1, queries, key_dim]
    page_sin: Tensor


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """queries [b, n, dim] @ keys [b, k, dim]^T as [b, n, k], the faster way round for few queries."""
    if queries.shape[1] < FEW_QUERIES:
        return torch.bmm(keys, queries.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(queries, keys.transpose(1, 2))


def _add_product(out: Tensor | None, weights: Tensor, values: Tensor) -> Tensor:
    return torch.bmm(weights, values) if out is None else torch.baddbmm(out, weights, values)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last dimension in float32; a sink takes its share and is dropped."""
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32)
    heads, teams, group, size, _ = scores.shape
    sink = sinks.to(scores.dtype).view(heads, 1, group, 1, 1).expand(-1, teams, -1, size, -1)
    with_sink = torch.cat([scores, sink], -1).softmax(-1, dtype=torch.float32)
    return with_sink[..., :-1].contiguous()


def _connected(rows: Sequence[Row]) -> Iterator[tuple[Ints, list[Row]]]:
    """Rows that share blocks, directly or through others, with their places in the packed row."""
    teams: list[tuple[set[Block], list[int]]] = []
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


def _plan(current: Pass, places: Ints, rows: Sequence[Row], window: int | None) -> Team:
    """Finds out what each query of a team sees, and cuts it into stretches and pages."""
    numbers: dict[Block, int] = {}
    for row in rows:
        for block in row.view:
            numbers.setdefault(block, len(numbers))
    shape = (len(numbers), len(places))
    shifts, upto = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    after = np.full(shape, -1, np.int64)
    at = 0
    for row in rows:
        mine, own_start = slice(at, at + row.count), row.starts[-1]
        own = np.arange(row.position, row.position + row.count)
        for block, start in zip(row.view, row.starts, strict=True):
            number = numbers[block]
            shifts[number, mine] = own_start - start
            upto[number, mine] = current.lengths[block]
            if window is not None:
                after[number, mine] = own + (own_start - start - window)
        upto[numbers[row.view[-1]], mine] = own + 1
        at += row.count
    team = Team(places, shifts, upto, after, [], [])
    # Of a block, all queries that see it see common_first..common_last, some of them first..last.
    sees = upto > 0
    begins = np.maximum(after + 1, 0)
    first = np.where(sees, begins, np.iinfo(np.int64).max).min(1).tolist()
    common_first = np.where(sees, begins, 0).max(1).tolist()
    common_last = np.where(sees, upto, np.iinfo(np.int64).max).min(1).tolist()
    last = upto.max(1).tolist()
    few = STRETCH_BYTES // current.pool.bytes_per_layer
    for block, number in numbers.items():
        base = 0
        for extent in block.extents:
            end = base + extent.count * PAGE
            start, stop = max(common_first[number], base), min(common_last[number], end)
            shift = extent.first * PAGE - base
            if stop > start and max(stop - start, PAGE) >= few:
                team.stretches.append(Stretch(number, start + shift, stop + shift))
                pieces = [(max(first[number], base), start), (stop, min(last[number], end))]
            else:
                pieces = [(max(first[number], base), min(last[number], end))]
            for begin, finish in pieces:
                for page in range(begin // PAGE, -(-finish // PAGE)) if finish > begin else ():
                    page_base = page * PAGE
                    team.pages.append(
                        Page(number, page + shift // PAGE, page_base, begin, finish)
                    )
            base = end
    return team


def _seen(team: Team) -> Flags:
    """Which slots of the team's pages each query sees: [queries, pages, PAGE]."""
    if not team.pages:
        return np.zeros((len(team.queries), 0, PAGE), np.bool_)
    table = np.array(team.pages)
    at = table[:, 2:3] + np.arange(PAGE)  # [pages, PAGE], block-local positions
    takes_part = (at >= table[:, 3:4]) & (at < table[:, 4:5])
    upto = team.upto[table[:, 0]].T[:, :, None]  # [queries, pages, 1]
    after = team.after[table[:, 0]].T[:, :, None]
    seen: Flags = takes_part & (at < upto) & (at > after)
    return seen
