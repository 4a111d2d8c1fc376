"""Passes over random blocks, and what attention should make of them, by brute force in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.attention.interface import Pass, Row, Scoring
from hogwild_agents.engine.attention.triton import TritonAttend, TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import candidate_rotations, no_rotation

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REHEARSAL = DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the tests run on a CPU, in Triton's interpreter and on small inputs, to try them out."""

BOUNDS = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of ||out - reference|| / ||reference||, by the precision of queries."""

Writer = tuple[Sequence[int], int]
"""The numbers of the blocks in a view, and how many tokens are written to the last one."""


@dataclass(frozen=True)
class Geometry:
    """A layer of attention by its measures.

    Attributes:
        heads: Query heads.
        kv_heads: Key/value heads.
        dim: Size of a key.
        turning: How many of its numbers turn with position.
        value_dim: Size of a value; that of a key if 0.
        interleaved: Whether pairs that turn are neighbours, rather than half of the part apart.
        at_end: Whether the last numbers turn, rather than the first.
        window: See `Layer`.
        softcap: See `Scoring`.
        sinks: Whether each head has one.
    """

    heads: int
    kv_heads: int
    dim: int
    turning: int
    value_dim: int = 0
    interleaved: bool = False
    at_end: bool = False
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    def frequency(self) -> Tensor:
        """float64 [pairs], radians per position."""
        places = torch.arange(0, self.turning, 2, dtype=torch.float64)
        return 10_000.0 ** -(places / max(1, self.turning))

    def layer(self) -> Layer:
        """As the engine knows it."""
        rotation = no_rotation(self.dim)
        if self.turning:
            name = f"{'interleaved' if self.interleaved else 'half'} {self.turning}/{self.dim}"
            name += " at the end" * self.at_end
            every = candidate_rotations([self.frequency()], self.dim)
            (rotation,) = (found for found in every if found.name == name)
        rotation, value_dim = rotation.to(DEVICE), self.value_dim or self.dim
        return Layer(0, self.heads, self.kv_heads, self.dim, value_dim, rotation, self.window)

    def rotate(self, states: Tensor, places: Tensor) -> Tensor:
        """Float64 `states` [heads, tokens, dim] turned on by `places` [tokens]."""
        first = self.dim - self.turning if self.at_end else 0
        part = states[..., first : first + self.turning]
        pairs = part.unflatten(-1, (-1, 2) if self.interleaved else (2, -1))
        pairs = pairs if self.interleaved else pairs.transpose(-1, -2)
        angles = places.double()[:, None] * self.frequency().to(places.device)
        cos, sin = angles.cos(), angles.sin()
        one, other = pairs.unbind(-1)
        turned = torch.stack([one * cos - other * sin, other * cos + one * sin], -1)
        turned = turned if self.interleaved else turned.transpose(-1, -2)
        out = states.clone()
        out[..., first : first + self.turning] = turned.flatten(-2)
        return out


class Scene:
    """Blocks full of random numbers in a pool that is poisoned elsewhere, and a pass over them.

    Args:
        geometry: Of the only layer.
        dtype: Of queries, keys and values as a model computes them.
        lengths: Of the blocks.
        writers: Who writes.
        cache_dtype: Of what is kept; `dtype` if None.
        seed: Of the numbers.
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
        layer, kept = geometry.layer(), cache_dtype or dtype
        token = layer.kv_heads * (layer.key_dim + layer.value_dim) * kept.itemsize
        tokens = sum(lengths) + sum(count for _, count in writers)
        pages = tokens // PAGE + 2 * len(lengths) + 8
        self.pool = TritonPool([layer], kept, DEVICE, pages * PAGE * token)
        self.pool.reserve([])
        if not self.pool.keys[0].shape[1]:
            self.pool._grow(pages)
        for storage in (self.pool.keys[0], self.pool.values[0]):
            if kept.itemsize == 1:
                storage.view(torch.uint8).fill_(0x7F)  # NaN too
            else:
                storage.fill_(torch.nan)
        self.blocks = [CacheBlock(self.pool) for _ in lengths]
        self.keys = [self._draw(layer.kv_heads, count, layer.key_dim) for count in lengths]
        self.values = [self._draw(layer.kv_heads, count, layer.value_dim) for count in lengths]
        grown = min(lengths) > 2 * PAGE  # by halves, so that blocks lie in several pieces
        for half in (0, 1) if grown else (1,):
            for number, count in enumerate(lengths):
                self._plant(number, count if half else count // 2)
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
        """What the kernels make of the pass: [tokens, heads, value_dim]."""
        attend = TritonAttend.of(Pass(self.pool, self.rows))
        asked = (
            states.transpose(0, 1).contiguous().transpose(0, 1)  # as a model's projections lie
            for states in (self.query, self.key, self.value)
        )
        return attend(self.pool.layers[0], *asked, self.scoring)

    def expected(self) -> Tensor:
        """The same by the definition, from what is kept: float64 [tokens, heads, value_dim]."""
        keys, values = self._after()
        scaling, softcap, sinks = self.scoring
        geometry, out, at = self.geometry, [], 0
        group = geometry.heads // geometry.kv_heads
        for row, (view, count) in zip(self.rows, self.writers, strict=True):
            places = [
                start + torch.arange(keys[number].shape[1], device=DEVICE)
                for number, start in zip(view, row.starts, strict=True)
            ]
            seen_keys = torch.cat(
                [
                    geometry.rotate(
                        keys[number].double(), torch.full((len(place),), start, device=DEVICE)
                    )
                    for number, start, place in zip(view, row.starts, places, strict=True)
                ],
                1,
            )
            seen_values = torch.cat([values[number].double() for number in view], 1)
            asking = self.query[:, at : at + count].double()
            start = torch.full((count,), row.starts[-1], device=DEVICE)
            asking = geometry.rotate(asking, start) * scaling
            at += count
            standing = row.starts[-1] + row.position + torch.arange(count, device=DEVICE)
            distance = standing[:, None] - torch.cat(places)
            hidden = (distance < 0) | (distance >= (geometry.window or 2**40))
            heads = []
            for head in range(geometry.heads):
                scores = asking[head] @ seen_keys[head // group].T
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
        """Asserts that the pass wrote its keys and values to their places only."""
        used = torch.zeros(self.pool.keys[0].shape[1], dtype=torch.bool, device=DEVICE)
        keys, values = self._after()
        for block, key, value in zip(self.blocks, keys, values, strict=True):
            slots = self.pool.tensor(block.slots(0, key.shape[1]))
            used[slots] = True
            for kept, wanted in ((self.pool.keys[0], key), (self.pool.values[0], value)):
                assert torch.equal(kept.float()[:, slots], wanted.float())
        for kept in (self.pool.keys[0], self.pool.values[0]):
            assert kept.float()[:, ~used].isnan().all(), "what nobody owns was written"

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._drawing, device=DEVICE).to(self.dtype)

    def _plant(self, number: int, upto: int) -> None:
        """Fills a block up to a length; its keys stand as they do in the cache."""
        block = self.blocks[number]
        first = len(block)
        self.pool.reserve([(block, upto - first)])
        if upto > first:
            slots = self.pool.tensor(block.slots(first, upto))
            self.pool.put(self.pool.keys[0], slots, self.keys[number][:, first:upto])
            self.pool.put(self.pool.values[0], slots, self.values[number][:, first:upto])
            block.advance(upto - first)

    def _rows(self) -> list[Row]:
        growth = {view[-1]: count for view, count in self.writers}
        self.pool.reserve([(self.blocks[number], count) for number, count in growth.items()])
        rows = []
        for worker, (view, count) in enumerate(self.writers):
            after = [len(self.blocks[number]) + growth.get(number, 0) for number in view]
            starts = [0, *np.cumsum(after[:-1]).tolist()]
            seen = [self.blocks[number] for number in view]
            rows.append(Row(worker, seen, np.arange(count), starts, len(seen[-1])))
        return rows

    def _after(self) -> tuple[list[Tensor], list[Tensor]]:
        """Every block's keys and values after the pass, rounded as the cache rounds them."""
        keys, values, at = list(self.keys), list(self.values), 0
        for view, count in self.writers:
            for kept, new in ((keys, self.key), (values, self.value)):
                kept[view[-1]] = torch.cat([kept[view[-1]], new[:, at : at + count]], 1)
            at += count
        return tuple(  # type: ignore[return-value]
            [states.to(self.pool.dtype).to(self.dtype) for states in kept]
            for kept in (keys, values)
        )


def error(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||; NaN if anything is."""
    return float((out.double() - reference).norm() / reference.norm())


def team(prompt: int, first: int, counts: Sequence[int]) -> list[Writer]:
    """Workers who see a prompt, each other in turn, and themselves; own blocks from `first` on."""
    own = range(first, first + len(counts))
    return [
        ([prompt, *(other for other in own if other != mine), mine], count)
        for mine, count in zip(own, counts, strict=True)
    ]
