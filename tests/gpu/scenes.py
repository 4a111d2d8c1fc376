"""Passes over random blocks, and the attention that they should give, in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.attention.interface import Pass, Row, Scoring
from hogwild_agents.engine.attention.triton import TritonAttention, TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import bytes_per_token
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import candidate_rotations, no_rotation

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REHEARSAL = DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the tests run on a CPU with small inputs, in Triton's interpreter."""

BOUNDS = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Bounds of ||out - reference|| / ||reference||, by the type of the queries."""

Writer = tuple[Sequence[int], int]
"""The numbers of the blocks in a view, and how many tokens are written to the last one."""


@dataclass(frozen=True)
class Geometry:
    """The properties of an attention layer.

    Attributes:
        heads: Query heads.
        kv_heads: Key/value heads.
        dim: Size of a key.
        rotary_dim: How many of its numbers rotate with position.
        value_dim: Size of a value; that of a key if 0.
        interleaved: Whether pairs that rotate are neighbours, not half of the rotary part apart.
        at_end: Whether the last numbers rotate, not the first.
        window: See `Layer`.
        softcap: See `Scoring`.
        sinks: Whether each head has one.
    """

    heads: int
    kv_heads: int
    dim: int
    rotary_dim: int
    value_dim: int = 0
    interleaved: bool = False
    at_end: bool = False
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    def frequency(self) -> Tensor:
        """float64 [pairs], radians per position."""
        exponents = torch.arange(0, self.rotary_dim, 2, dtype=torch.float64)
        return 10_000.0 ** -(exponents / max(1, self.rotary_dim))

    def layer(self) -> Layer:
        """The layer as the engine would measure it."""
        rotation = no_rotation(self.dim)
        if self.rotary_dim:
            name = f"{'interleaved' if self.interleaved else 'half'} {self.rotary_dim}/{self.dim}"
            name += " at the end" * self.at_end
            candidates = candidate_rotations([self.frequency()], self.dim)
            (rotation,) = (candidate for candidate in candidates if candidate.name == name)
        rotation, value_dim = rotation.to(DEVICE), self.value_dim or self.dim
        return Layer(0, self.heads, self.kv_heads, self.dim, value_dim, rotation, self.window)

    def rotate(self, states: Tensor, positions: Tensor) -> Tensor:
        """Float64 `states` [heads, tokens, dim] rotated by `positions` [tokens]."""
        first = self.dim - self.rotary_dim if self.at_end else 0
        part = states[..., first : first + self.rotary_dim]
        half = self.rotary_dim // 2
        size = (half, 2) if self.interleaved else (2, half)
        pairs = part.reshape(*part.shape[:-1], *size)
        pairs = pairs if self.interleaved else pairs.transpose(-1, -2)
        angles = positions.double()[:, None] * self.frequency().to(positions.device)
        cos, sin = angles.cos(), angles.sin()
        x, y = pairs.unbind(-1)
        rotated = torch.stack([x * cos - y * sin, y * cos + x * sin], -1)
        rotated = rotated if self.interleaved else rotated.transpose(-1, -2)
        out = states.clone()
        out[..., first : first + self.rotary_dim] = rotated.flatten(-2)
        return out


class Scene:
    """Blocks full of random numbers in a pool that is otherwise NaN, and a pass over them.

    Args:
        geometry: Geometry of the only layer.
        dtype: Type of queries, keys and values as a model computes them.
        lengths: Lengths of the blocks.
        writers: What each worker writes.
        cache_dtype: Type of the cache; `dtype` if None.
        seed: Seed of the random numbers.
    """

    def __init__(
        self,
        geometry: Geometry,
        dtype: torch.dtype,
        lengths: Sequence[int],
        writers: Sequence[Writer],
        cache_dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        self.geometry, self.dtype = geometry, dtype
        self._drawing = torch.Generator(DEVICE).manual_seed(seed)
        layer, stored = geometry.layer(), cache_dtype or dtype
        token_bytes = bytes_per_token([layer], stored)
        tokens = sum(lengths) + sum(count for _, count in writers)
        pages = tokens // PAGE + 2 * len(lengths) + 8
        self.pool = TritonPool([layer], stored, DEVICE, pages * PAGE * token_bytes)
        self.pool.reserve([])
        if not self.pool.keys[0].shape[1]:
            self.pool._grow(pages)
        for storage in (self.pool.keys[0], self.pool.values[0]):
            if stored.itemsize == 1:
                storage.view(torch.uint8).fill_(0x7F)  # NaN
            else:
                storage.fill_(torch.nan)
        self.blocks = [CacheBlock(self.pool) for _ in lengths]
        self.keys = [self._draw(layer.kv_heads, count, layer.key_dim) for count in lengths]
        self.values = [self._draw(layer.kv_heads, count, layer.value_dim) for count in lengths]
        if min(lengths) > 2 * PAGE:  # in two halves, so that blocks are fragmented
            for number, count in enumerate(lengths):
                self._plant(number, count // 2)
        for number, count in enumerate(lengths):
            self._plant(number, count)
        self.writers = writers
        self.rows = self._rows()
        self.query = self._draw(layer.heads, self.tokens, layer.key_dim)
        self.key = self._draw(layer.kv_heads, self.tokens, layer.key_dim)
        self.value = self._draw(layer.kv_heads, self.tokens, layer.value_dim)

    @property
    def tokens(self) -> int:
        """New tokens of the pass."""
        return sum(count for _, count in self.writers)

    @property
    def scoring(self) -> Scoring:
        """What the layer does to its scores."""
        sinks = torch.linspace(-2, 3, self.geometry.heads, dtype=self.dtype, device=DEVICE)
        scaling = 1.5 * self.geometry.dim**-0.5
        return Scoring(scaling, self.geometry.softcap, sinks if self.geometry.sinks else None)

    def run(self) -> Tensor:
        """The outputs of the kernels: [tokens, heads, value_dim]."""
        attention = TritonAttention.prepare(Pass(self.pool, self.rows))
        query, key, value = (
            states.transpose(0, 1).contiguous().transpose(0, 1)  # in memory like a projection
            for states in (self.query, self.key, self.value)
        )
        return attention(self.pool.layers[0], query, key, value, self.scoring)

    def expected(self) -> Tensor:
        """The outputs by definition, from the stored keys and values: float64."""
        keys, values = self._after()
        scaling, softcap, sinks = self.scoring
        geometry, out, at = self.geometry, [], 0
        group = geometry.heads // geometry.kv_heads
        for row, (view, count) in zip(self.rows, self.writers, strict=True):
            positions = [
                start + torch.arange(keys[number].shape[1], device=DEVICE)
                for number, start in zip(view, row.starts, strict=True)
            ]
            seen_keys = torch.cat(
                [
                    geometry.rotate(
                        keys[number].double(),
                        torch.full(keys[number].shape[1:2], start, device=DEVICE),
                    )
                    for number, start in zip(view, row.starts, strict=True)
                ],
                1,
            )
            seen_values = torch.cat([values[number].double() for number in view], 1)
            query = self.query[:, at : at + count].double()
            start = torch.full((count,), row.starts[-1], device=DEVICE)
            query = geometry.rotate(query, start) * scaling
            at += count
            query_positions = row.starts[-1] + row.position + torch.arange(count, device=DEVICE)
            distance = query_positions[:, None] - torch.cat(positions)
            hidden = (distance < 0) | (distance >= (geometry.window or 2**40))
            heads = []
            for head in range(geometry.heads):
                scores = query[head] @ seen_keys[head // group].T
                if softcap is not None:
                    scores = softcap * (scores / softcap).tanh()
                scores = scores.masked_fill(hidden, -torch.inf)
                if sinks is not None:
                    scores = torch.cat([scores, sinks[head].double().expand(count, 1)], 1)
                weights = scores.softmax(-1)[:, : seen_keys.shape[1]]
                heads.append(weights @ seen_values[head // group])
            out.append(torch.stack(heads, 1))
        return torch.cat(out)

    def check_cache(self) -> None:
        """Asserts that the pass wrote its keys and values to their slots, and nothing else."""
        used = torch.zeros(self.pool.keys[0].shape[1], dtype=torch.bool, device=DEVICE)
        keys, values = self._after()
        for block, key, value in zip(self.blocks, keys, values, strict=True):
            slots = self.pool.tensor(block.slots(0, key.shape[1]))
            used[slots] = True
            for stored, expected in ((self.pool.keys[0], key), (self.pool.values[0], value)):
                assert torch.equal(stored.float()[:, slots], expected.float())
        for stored in (self.pool.keys[0], self.pool.values[0]):
            assert stored.float()[:, ~used].isnan().all(), "an unused slot was written"

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._drawing, device=DEVICE).to(self.dtype)

    def _plant(self, number: int, length: int) -> None:
        """Fills a block up to a length; its keys are already rotated to block-local positions."""
        block = self.blocks[number]
        first = len(block)
        self.pool.reserve([(block, length - first)])
        if length > first:
            slots = self.pool.tensor(block.slots(first, length))
            self.pool.put(self.pool.keys[0], slots, self.keys[number][:, first:length])
            self.pool.put(self.pool.values[0], slots, self.values[number][:, first:length])
            block.advance(length - first)

    def _rows(self) -> list[Row]:
        growth = {view[-1]: count for view, count in self.writers}
        self.pool.reserve([(self.blocks[number], count) for number, count in growth.items()])
        rows = []
        for worker, (view, count) in enumerate(self.writers):
            lengths = [len(self.blocks[number]) + growth.get(number, 0) for number in view]
            starts = [0, *np.cumsum(lengths[:-1]).tolist()]
            blocks = [self.blocks[number] for number in view]
            rows.append(Row(worker, blocks, np.arange(count), starts, len(blocks[-1])))
        return rows

    def _after(self) -> tuple[list[Tensor], list[Tensor]]:
        """Every block's keys and values after the pass, rounded as the cache rounds them."""
        keys, values, at = list(self.keys), list(self.values), 0
        for view, count in self.writers:
            for states, new in ((keys, self.key), (values, self.value)):
                states[view[-1]] = torch.cat([states[view[-1]], new[:, at : at + count]], 1)
            at += count
        return [self._rounded(key) for key in keys], [self._rounded(value) for value in values]

    def _rounded(self, states: Tensor) -> Tensor:
        return states.to(self.pool.dtype).to(self.dtype)


def error(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||; NaN if anything is."""
    return float((out.double() - reference).norm() / reference.norm())


def team(prompt: int, first: int, counts: Sequence[int]) -> list[Writer]:
    """Workers that see a prompt, each other and themselves; their own blocks begin at `first`."""
    own = range(first, first + len(counts))
    return [
        ([prompt, *(other for other in own if other != block), block], count)
        for block, count in zip(own, counts, strict=True)
    ]
