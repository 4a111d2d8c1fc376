"""Layers of every geometry that the engine knows, in pools whose contents are planted.

Both backends read them, and brute force in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.attention.interface import Attend, Pass, Scoring
from hogwild_agents.engine.attention.torch import TorchAttend
from hogwild_agents.engine.attention.triton import INTERPRETED, TritonAttend, TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation, candidate_rotations, no_rotation
from tests.unit.engine.attention.scenes import Grow, Scene, Stage, Writer

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
COUNTS = (1, 1, 1, 1, 1, 2, 2, 3, PAGE + 1)
GARBAGE = 400.0
"""What lies in slots that nobody has written: it must not matter."""


@dataclasses.dataclass(frozen=True)
class Turning:
    """How a head turns with position: its first or last `size` dimensions, in pairs."""

    size: int
    interleaved: bool = False
    at_end: bool = False
    backwards: bool = False

    def frequency(self) -> Tensor:
        """float64 [pairs]."""
        return 10_000.0 ** -(torch.arange(0, self.size, 2, dtype=torch.float64) / self.size)

    def rotation(self, dim: int) -> Rotation:
        """What the engine would measure."""
        name = f"{'interleaved' if self.interleaved else 'half'} {self.size}/{dim}"
        name += " at the end" * self.at_end + " backwards" * self.backwards
        (found,) = (r for r in candidate_rotations([self.frequency()], dim) if r.name == name)
        return found

    def rotate(self, x: Tensor, places: Tensor) -> Tensor:
        """Float64 `x` [heads, tokens, dim] turned on by its places, as complex numbers."""
        start = x.shape[-1] - self.size if self.at_end else 0
        part = x[..., start : start + self.size]
        if self.interleaved:
            first, second = part[..., 0::2], part[..., 1::2]
        else:
            first, second = part.chunk(2, -1)
        angle = places[:, None] * self.frequency() * (-1 if self.backwards else 1)
        turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
        out = x.clone()
        pairs = (turned.real, turned.imag)
        out[..., start : start + self.size] = (
            torch.stack(pairs, -1).flatten(-2) if self.interleaved else torch.cat(pairs, -1)
        )
        return out


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A layer by its measures."""

    heads: int
    kv_heads: int
    dim: int
    turning: Turning | None
    value_dim: int | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    spread: float = 1.7

    def layer(self, index: int) -> Layer:
        """The layer as the engine knows it."""
        rotation = self.turning.rotation(self.dim) if self.turning else no_rotation(self.dim)
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
        """Scores with a standard deviation of `spread`."""
        sinks = torch.linspace(-2, 3, self.heads, dtype=dtype, device=DEVICE)
        return Scoring(self.spread * self.dim**-0.5, self.softcap, sinks if self.sinks else None)

    def rotate(self, x: Tensor, places: Tensor) -> Tensor:
        """As `Turning.turn`; nothing turns in a NoPE layer."""
        return self.turning.rotate(x, places) if self.turning else x


GEOMETRIES = {
    "grouped": Geometry(4, 2, 16, Turning(16)),
    "single head": Geometry(1, 1, 32, Turning(32, interleaved=True)),
    "many heads per key": Geometry(7, 1, 16, Turning(16, backwards=True)),
    "window": Geometry(4, 2, 16, Turning(16), window=7),
    "window of a page": Geometry(2, 2, 16, Turning(16), window=PAGE),
    "window of one": Geometry(2, 1, 16, Turning(16), window=1),
    "soft cap": Geometry(4, 2, 16, Turning(16), softcap=2.5),
    "soft cap under a window": Geometry(4, 1, 16, Turning(16), softcap=2.5, window=40),
    "sinks": Geometry(4, 2, 16, Turning(16), sinks=True, window=9),
    "scores beyond what can be exponentiated": Geometry(2, 1, 16, Turning(16), spread=60.0),
    "no positions": Geometry(4, 2, 16, None),
    "no positions under a window": Geometry(4, 2, 16, None, window=33),
    "partial": Geometry(4, 2, 16, Turning(8)),
    "partial interleaved": Geometry(4, 4, 20, Turning(12, interleaved=True)),
    "latent": Geometry(4, 4, 24, Turning(16, at_end=True), value_dim=16),
    "latent interleaved": Geometry(
        2, 2, 24, Turning(8, interleaved=True, at_end=True), value_dim=12
    ),
    "values larger than keys": Geometry(2, 1, 8, Turning(8), value_dim=20),
    "head of 80": Geometry(2, 1, 80, Turning(80)),
    "head of 96": Geometry(3, 1, 96, Turning(48)),
    "head of 256": Geometry(2, 1, 256, Turning(256)),
}


@dataclasses.dataclass
class Planted(Stage[CachePool]):
    """A scene whose blocks hold keys and values drawn at random for each token and layer.

    Attributes:
        geometries: Of the pool's layers.
        dtype: Of what the model computes with.
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
        places = torch.arange(start, start + len(tokens), dtype=torch.float64)
        keys = self.geometries[layer].rotate(self.keys[layer][:, list(tokens)], places)
        return keys.to(self.dtype).to(self.pool.dtype)

    def stored_values(self, layer: int, tokens: Sequence[int]) -> Tensor:
        """Values as they are stored: [kv_heads, tokens, value_dim]."""
        return self.values[layer][:, list(tokens)].to(self.dtype).to(self.pool.dtype)

    def plant(self, block: CacheBlock, tokens: Sequence[int]) -> None:
        slots = self.pool.tensor(block.slots(len(block), len(block) + len(tokens)))
        for layer, keys, values in self.pool.storage():
            own = self.local_keys(layer.index, tokens, len(block)).to(DEVICE)
            self.pool.put(keys, slots, own)
            self.pool.put(values, slots, self.stored_values(layer.index, tokens).to(DEVICE))

    def asks(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the model gives to attention: query, key and value [heads, tokens, dim].

        They lie as a model's projections do, [tokens, heads, dim].
        """
        geometry = self.geometries[layer]
        drawing = torch.Generator().manual_seed(self.scene.seed + 7)
        tokens = len(self.new)
        places = torch.from_numpy(self.current.positions).double()
        size = geometry.heads, tokens, geometry.dim
        query = torch.randn(size, generator=drawing, dtype=torch.float64)
        key = self.keys[layer][:, self.new]
        query, key = (geometry.rotate(states, places) for states in (query, key))
        value = self.values[layer][:, self.new]
        return tuple(  # type: ignore[return-value]
            states.to(DEVICE, self.dtype).transpose(0, 1).contiguous().transpose(0, 1)
            for states in (query, key, value)
        )

    def expected(self, layer: int) -> Tensor:
        """What each query should read, by the definition: float64 [tokens, heads, value_dim]."""
        geometry = self.geometries[layer]
        scaling, softcap, sinks = geometry.scoring(self.dtype)
        group = geometry.heads // geometry.kv_heads
        queries = self.asks(layer)[0].cpu().double()
        out, at = [], 0
        for row, writer in zip(self.current.rows, self.scene.writers, strict=True):
            keys, values, places = [], [], []
            for number, start in zip(writer.view, row.starts, strict=True):
                text = self.texts[number]
                place = torch.full((len(text),), start, dtype=torch.float64)
                keys.append(geometry.rotate(self.local_keys(layer, text, 0).double(), place))
                values.append(self.stored_values(layer, text).double())
                places.append(start + torch.arange(len(text)))
            key = torch.cat(keys, 1).repeat_interleave(group, 0)
            value = torch.cat(values, 1).repeat_interleave(group, 0)
            mine = queries[:, at : at + row.count]
            at += row.count
            place = torch.full((row.count,), row.starts[-1], dtype=torch.float64)
            scores = geometry.rotate(mine, place) @ key.transpose(1, 2) * scaling
            if softcap is not None:
                scores = softcap * (scores / softcap).tanh()
            standing = row.starts[-1] + row.position + torch.arange(row.count)
            distance = standing[:, None] - torch.cat(places)
            seen = (distance >= 0) & (distance < (geometry.window or 2**40))
            scores = scores.masked_fill(~seen, -torch.inf)
            if sinks is not None:
                column = sinks.cpu().double()[:, None, None].expand(-1, row.count, 1)
                scores = torch.cat([scores, column], -1)
            weights = scores.softmax(-1)[..., : key.shape[1]]
            out.append((weights @ value).transpose(0, 1))
        return torch.cat(out)

    def read(self, attend: Callable[[Pass], Attend]) -> Iterator[Tensor]:
        """What a backend makes of the pass, layer by layer: [tokens, heads, value_dim]."""
        prepared = attend(self.current)
        for layer, geometry in zip(self.pool.layers, self.geometries, strict=True):
            yield prepared(layer, *self.asks(layer.index), geometry.scoring(self.dtype))


def planted(
    scene: Scene,
    geometries: Sequence[Geometry],
    dtype: torch.dtype = torch.float32,
    kind: type[CachePool] = TritonPool,
    cache: torch.dtype | None = None,
) -> Planted:
    """A scene in a pool of its own, whose layers have these geometries."""
    cache = cache or dtype
    layers = [geometry.layer(index) for index, geometry in enumerate(geometries)]
    token = cache.itemsize * sum(g.kv_heads * (g.dim + (g.value_dim or g.dim)) for g in geometries)
    return Planted(kind(layers, cache, DEVICE, 160 * PAGE * token), scene, geometries, dtype)


def close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Asserts that two tensors agree, of whatever precision and wherever they are."""
    torch.testing.assert_close(
        got.cpu().double(), expected.cpu().double(), atol=tolerance, rtol=tolerance
    )


def check(
    scene: Scene,
    geometries: Sequence[Geometry],
    dtype: torch.dtype,
    cache: torch.dtype | None = None,
) -> None:
    """Asserts that both backends give what brute force gives, and leave the same cache."""
    ours = planted(scene, geometries, dtype, TritonPool, cache)
    theirs = planted(scene, geometries, dtype, CachePool, cache)
    outputs = zip(ours.read(TritonAttend.of), theirs.read(TorchAttend), strict=True)
    for layer, (got, twin) in enumerate(outputs):
        expected = ours.expected(layer)
        tolerance = TOLERANCES[dtype] * max(1.0, geometries[layer].spread / 5)
        assert got.dtype == dtype
        assert got.shape == expected.shape
        close(got, expected, tolerance)
        close(twin, expected, tolerance)
        close(got, twin, tolerance)
    for mine, other in zip(storage(ours.pool), storage(theirs.pool), strict=True):
        close(mine, other, TOLERANCES[dtype] if cache is None else 0)


def storage(pool: CachePool) -> list[Tensor]:
    """Copies of all that a pool holds."""
    return [kept.clone() for kept in (*pool.keys, *pool.values)]
