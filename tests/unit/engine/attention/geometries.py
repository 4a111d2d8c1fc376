"""Layers of every geometry that the engine supports, in pools filled with known numbers.

Both backends read them, and so does brute force in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.attention.interface import Attention, Pass, Scoring
from hogwild_agents.engine.attention.torch import TorchAttention
from hogwild_agents.engine.attention.triton import INTERPRETED, TritonAttention, TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool, bytes_per_token
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation, candidate_rotations, no_rotation
from tests.unit.engine.attention.scenes import Grow, Scene, Stage, Writer

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
COUNTS = (1, 1, 1, 1, 1, 2, 2, 3, PAGE + 1)
GARBAGE = 400.0
"""What slots hold that were never written: it must not matter."""


@dataclasses.dataclass(frozen=True)
class Rotary:
    """How a head rotates with position: its first or last `size` dimensions, in pairs."""

    size: int
    interleaved: bool = False
    at_end: bool = False
    backwards: bool = False

    def frequency(self) -> Tensor:
        """float64 [pairs]."""
        return 10_000.0 ** -(torch.arange(0, self.size, 2, dtype=torch.float64) / self.size)

    def rotation(self, dim: int) -> Rotation:
        """The rotation as the engine would measure it."""
        name = f"{'interleaved' if self.interleaved else 'half'} {self.size}/{dim}"
        name += " at the end" * self.at_end + " backwards" * self.backwards
        candidates = candidate_rotations([self.frequency()], dim)
        (rotation,) = (candidate for candidate in candidates if candidate.name == name)
        return rotation

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Float64 `x` [heads, tokens, dim] rotated by its positions, as complex numbers."""
        start = x.shape[-1] - self.size if self.at_end else 0
        part = x[..., start : start + self.size]
        if self.interleaved:
            first, second = part[..., 0::2], part[..., 1::2]
        else:
            first, second = part.chunk(2, -1)
        angle = positions[:, None] * self.frequency() * (-1 if self.backwards else 1)
        rotated = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
        out = x.clone()
        pairs = (rotated.real, rotated.imag)
        out[..., start : start + self.size] = (
            torch.stack(pairs, -1).flatten(-2) if self.interleaved else torch.cat(pairs, -1)
        )
        return out


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The properties of a layer; `spread` is the standard deviation of its scores."""

    heads: int
    kv_heads: int
    dim: int
    rotary: Rotary | None
    value_dim: int | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    spread: float = 1.7

    def layer(self, index: int) -> Layer:
        """The layer as the engine would measure it."""
        rotation = self.rotary.rotation(self.dim) if self.rotary else no_rotation(self.dim)
        return Layer(
            index,
            self.heads,
            self.kv_heads,
            self.dim,
            self.value_dim or self.dim,
            rotation.to(DEVICE),
            self.window,
        )

    def scoring(self, dtype: torch.dtype) -> Scoring:
        """What the layer does to its scores."""
        sinks = torch.linspace(-2, 3, self.heads, dtype=dtype, device=DEVICE)
        return Scoring(self.spread * self.dim**-0.5, self.softcap, sinks if self.sinks else None)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """As `Rotary.rotate`; nothing rotates in a NoPE layer."""
        return self.rotary.rotate(x, positions) if self.rotary else x


GEOMETRIES = {
    "grouped": Geometry(4, 2, 16, Rotary(16)),
    "single head": Geometry(1, 1, 32, Rotary(32, interleaved=True)),
    "many heads per key": Geometry(7, 1, 16, Rotary(16, backwards=True)),
    "window": Geometry(4, 2, 16, Rotary(16), window=7),
    "window of a page": Geometry(2, 2, 16, Rotary(16), window=PAGE),
    "window of one": Geometry(2, 1, 16, Rotary(16), window=1),
    "soft cap": Geometry(4, 2, 16, Rotary(16), softcap=2.5),
    "soft cap under a window": Geometry(4, 1, 16, Rotary(16), softcap=2.5, window=40),
    "sinks": Geometry(4, 2, 16, Rotary(16), sinks=True, window=9),
    "scores beyond what can be exponentiated": Geometry(2, 1, 16, Rotary(16), spread=60.0),
    "no positions": Geometry(4, 2, 16, None),
    "no positions under a window": Geometry(4, 2, 16, None, window=33),
    "partial": Geometry(4, 2, 16, Rotary(8)),
    "partial interleaved": Geometry(4, 4, 20, Rotary(12, interleaved=True)),
    "latent": Geometry(4, 4, 24, Rotary(16, at_end=True), value_dim=16),
    "latent interleaved": Geometry(
        2, 2, 24, Rotary(8, interleaved=True, at_end=True), value_dim=12
    ),
    "values larger than keys": Geometry(2, 1, 8, Rotary(8), value_dim=20),
    "head of 80": Geometry(2, 1, 80, Rotary(80)),
    "head of 96": Geometry(3, 1, 96, Rotary(48)),
    "head of 256": Geometry(2, 1, 256, Rotary(256)),
}


@dataclasses.dataclass
class PlantedStage(Stage[CachePool]):
    """A scene whose blocks hold keys and values drawn at random for each token and layer.

    Attributes:
        geometries: Geometries of the pool's layers.
        dtype: What the model computes with.
        keys: Per layer, the keys of all tokens before rotation: float64 [kv_heads, tokens, dim].
        values: Per layer: float64 [kv_heads, tokens, value_dim].
    """

    geometries: Sequence[Geometry]
    dtype: torch.dtype
    keys: list[Tensor] = dataclasses.field(init=False)
    values: list[Tensor] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        drawing = torch.Generator().manual_seed(self.scene.seed)
        tokens = sum(
            step.count
            for step in (*self.scene.past, *self.scene.writers)
            if isinstance(step, (Grow, Writer))
        )
        self.keys, self.values = (
            [
                torch.randn(heads, tokens, dim, generator=drawing, dtype=torch.float64)
                for heads, dim in sizes
            ]
            for sizes in (
                [(g.kv_heads, g.dim) for g in self.geometries],
                [(g.kv_heads, g.value_dim or g.dim) for g in self.geometries],
            )
        )
        self.pool._grow(self.pool.limit_pages)
        for storage in (*self.pool.keys, *self.pool.values):
            storage.fill_(GARBAGE)
        super().__post_init__()

    def local_keys(self, layer: int, tokens: Sequence[int], start: int) -> Tensor:
        """Keys as they are stored at the positions from `start` on: [kv_heads, tokens, dim]."""
        positions = torch.arange(start, start + len(tokens), dtype=torch.float64)
        keys = self.geometries[layer].rotate(self.keys[layer][:, list(tokens)], positions)
        return keys.to(self.dtype).to(self.pool.dtype)

    def stored_values(self, layer: int, tokens: Sequence[int]) -> Tensor:
        """Values as they are stored: [kv_heads, tokens, value_dim]."""
        return self.values[layer][:, list(tokens)].to(self.dtype).to(self.pool.dtype)

    def plant(self, block: CacheBlock, tokens: Sequence[int]) -> None:
        slots = self.pool.tensor(block.slots(len(block), len(block) + len(tokens)))
        for layer, keys, values in self.pool.storage():
            local_keys = self.local_keys(layer.index, tokens, len(block)).to(DEVICE)
            self.pool.put(keys, slots, local_keys)
            self.pool.put(values, slots, self.stored_values(layer.index, tokens).to(DEVICE))

    def states(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the model passes to attention: query, key and value [heads, tokens, dim].

        In memory they are [tokens, heads, dim], like a model's projections.
        """
        geometry = self.geometries[layer]
        drawing = torch.Generator().manual_seed(self.scene.seed + 7)
        tokens = len(self.new)
        positions = torch.from_numpy(self.current.positions).double()
        size = geometry.heads, tokens, geometry.dim
        query = torch.randn(size, generator=drawing, dtype=torch.float64)
        query = geometry.rotate(query, positions)
        key = geometry.rotate(self.keys[layer][:, self.new], positions)
        query, key, value = (
            states.to(DEVICE, self.dtype).transpose(0, 1).contiguous().transpose(0, 1)
            for states in (query, key, self.values[layer][:, self.new])
        )
        return query, key, value

    def expected(self, layer: int) -> Tensor:
        """The outputs by definition: float64 [tokens, heads, value_dim]."""
        geometry = self.geometries[layer]
        scaling, softcap, sinks = geometry.scoring(self.dtype)
        group = geometry.heads // geometry.kv_heads
        queries = self.states(layer)[0].cpu().double()
        out, at = [], 0
        for row, writer in zip(self.current.rows, self.scene.writers, strict=True):
            keys, values, positions = [], [], []
            for number, start in zip(writer.view, row.starts, strict=True):
                text = self.texts[number]
                shift = torch.full((len(text),), start, dtype=torch.float64)
                keys.append(geometry.rotate(self.local_keys(layer, text, 0).double(), shift))
                values.append(self.stored_values(layer, text).double())
                positions.append(start + torch.arange(len(text)))
            key = torch.cat(keys, 1).repeat_interleave(group, 0)
            value = torch.cat(values, 1).repeat_interleave(group, 0)
            row_queries = queries[:, at : at + row.count]
            at += row.count
            shift = torch.full((row.count,), row.starts[-1], dtype=torch.float64)
            scores = geometry.rotate(row_queries, shift) @ key.transpose(1, 2) * scaling
            if softcap is not None:
                scores = softcap * (scores / softcap).tanh()
            query_positions = row.starts[-1] + row.position + torch.arange(row.count)
            distance = query_positions[:, None] - torch.cat(positions)
            visible = (distance >= 0) & (distance < (geometry.window or 2**40))
            scores = scores.masked_fill(~visible, -torch.inf)
            if sinks is not None:
                column = sinks.cpu().double()[:, None, None].expand(-1, row.count, 1)
                scores = torch.cat([scores, column], -1)
            weights = scores.softmax(-1)[..., : key.shape[1]]
            out.append((weights @ value).transpose(0, 1))
        return torch.cat(out)

    def run(self, prepare: Callable[[Pass], Attention]) -> Iterator[Tensor]:
        """A backend's outputs of the pass, layer by layer: [tokens, heads, value_dim]."""
        attention = prepare(self.current)
        for layer, geometry in zip(self.pool.layers, self.geometries, strict=True):
            yield attention(layer, *self.states(layer.index), geometry.scoring(self.dtype))


def planted(
    scene: Scene,
    geometries: Sequence[Geometry],
    dtype: torch.dtype = torch.float32,
    pool_class: type[CachePool] = TritonPool,
    cache_dtype: torch.dtype | None = None,
) -> PlantedStage:
    """A scene in a new pool whose layers have these geometries."""
    cache_dtype = cache_dtype or dtype
    layers = [geometry.layer(index) for index, geometry in enumerate(geometries)]
    pool = pool_class(
        layers, cache_dtype, DEVICE, 160 * PAGE * bytes_per_token(layers, cache_dtype)
    )
    return PlantedStage(pool, scene, geometries, dtype)


def close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Asserts that two tensors of any precision, on any device, agree."""
    torch.testing.assert_close(
        got.cpu().double(), expected.cpu().double(), atol=tolerance, rtol=tolerance
    )


def check(
    scene: Scene,
    geometries: Sequence[Geometry],
    dtype: torch.dtype,
    cache_dtype: torch.dtype | None = None,
) -> None:
    """Asserts that both backends compute what brute force computes, and leave the same cache."""
    triton = planted(scene, geometries, dtype, TritonPool, cache_dtype)
    plain = planted(scene, geometries, dtype, CachePool, cache_dtype)
    outputs = zip(triton.run(TritonAttention.prepare), plain.run(TorchAttention), strict=True)
    for layer, (got, reference) in enumerate(outputs):
        expected = triton.expected(layer)
        tolerance = TOLERANCES[dtype] * max(1.0, geometries[layer].spread / 5)
        assert got.dtype == dtype
        assert got.shape == expected.shape
        close(got, expected, tolerance)
        close(reference, expected, tolerance)
        close(got, reference, tolerance)
    for stored, other in zip(storage(triton.pool), storage(plain.pool), strict=True):
        close(stored, other, TOLERANCES[dtype] if cache_dtype is None else 0)


def storage(pool: CachePool) -> list[Tensor]:
    """Copies of a pool's keys and values, layer by layer."""
    return [states.clone() for states in (*pool.keys, *pool.values)]
