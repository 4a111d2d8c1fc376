"""The triton backend against the torch backend and against brute force in float64.

Without a CUDA card its kernels run in Triton's interpreter, so inputs are small and chosen to be
rich: any scene of `scenes.py`, read by layers of every geometry that the engine knows.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip("triton")

from hogwild_agents.engine import Block, ModelLoadError, SharedCacheModel
from hogwild_agents.engine.attention import Attend, Pass, Scoring
from hogwild_agents.engine.backends import choice
from hogwild_agents.engine.backends import triton as backend
from hogwild_agents.engine.backends.choice import choose_backend
from hogwild_agents.engine.backends.torch import TorchAttend
from hogwild_agents.engine.backends.triton import INTERPRETED, TritonAttend, TritonPool, sheet_of
from hogwild_agents.engine.blocks import PAGE, CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation, candidate_rotations, no_rotation
from tests.unit.engine.backends.scenes import Commit, Fork, Grow, Scene, Stage, Writer, scenes
from tests.unit.engine.pools import make_pool

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
COUNTS = (1, 1, 1, 1, 1, 2, 2, 3, PAGE + 1)
GARBAGE = 400.0
"""What lies in slots that nobody has written: it must not matter."""

GOLDEN = Path(__file__).parents[1] / "golden"


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

    def turn(self, x: Tensor, places: Tensor) -> Tensor:
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

    def turn(self, x: Tensor, places: Tensor) -> Tensor:
        """As `Turning.turn`; nothing turns in a NoPE layer."""
        return self.turning.turn(x, places) if self.turning else x


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
        keys = self.geometries[layer].turn(self.keys[layer][:, list(tokens)], places)
        return keys.to(self.dtype).to(self.pool.dtype)

    def stored_values(self, layer: int, tokens: Sequence[int]) -> Tensor:
        """Values as they are stored: [kv_heads, tokens, value_dim]."""
        return self.values[layer][:, list(tokens)].to(self.dtype).to(self.pool.dtype)

    def plant(self, block: Block, tokens: Sequence[int]) -> None:
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
        query, key = (geometry.turn(states, places) for states in (query, key))
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
                keys.append(geometry.turn(self.local_keys(layer, text, 0).double(), place))
                values.append(self.stored_values(layer, text).double())
                places.append(start + torch.arange(len(text)))
            key = torch.cat(keys, 1).repeat_interleave(group, 0)
            value = torch.cat(values, 1).repeat_interleave(group, 0)
            mine = queries[:, at : at + row.count]
            at += row.count
            place = torch.full((row.count,), row.starts[-1], dtype=torch.float64)
            scores = geometry.turn(mine, place) @ key.transpose(1, 2) * scaling
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


# Geometries whose heads are few enough for the interpreter to read any scene with.
CHOSEN = st.lists(
    st.sampled_from([name for name, geometry in GEOMETRIES.items() if geometry.heads <= 4]),
    min_size=1,
    max_size=2,
    unique=True,
)


@given(scenes(COUNTS), CHOSEN)
@settings(max_examples=50)
def test_any_scene_agrees_with_brute_force(scene: Scene, chosen: list[str]) -> None:
    """Two backends and the definition: the same outputs, and the same cache afterwards."""
    check(scene, [GEOMETRIES[name] for name in chosen], torch.float32)


TEAMS = Scene(
    7,
    (
        *(Grow(0, 33), Grow(1, 31), Grow(0, 32), Grow(5, 64), Grow(2, 3), Grow(0, 65)),
        *(Fork(0), Grow(7, 2), Commit(0, 2), Grow(2, 1)),
    ),
    (
        Writer((0, 1, 2), 1),
        Writer((5, 6), 2),
        Writer((0, 3, 2, 1), 2, gap=60_000),
        Writer((7, 0, 3), 1, gap=5),
        Writer((4,), 1),
    ),
    torn=True,
)
"""Three teams whose rows are mixed, blocks in pieces, a fork beside its twin, an interleaved row, a
step committed, empty blocks, and a worker who is far away."""


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry(name: str) -> None:
    check(TEAMS, [GEOMETRIES[name]], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["grouped", "soft cap under a window", "latent", "no positions"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    check(TEAMS, [GEOMETRIES[name]], dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["grouped", "latent"])
def test_an_eight_bit_cache(name: str, dtype: torch.dtype) -> None:
    """Keys and values are rounded once, when they are stored, and read as they are."""
    past = tuple(step for step in TEAMS.past if not isinstance(step, Commit))
    scene = dataclasses.replace(TEAMS, past=past)
    check(scene, [GEOMETRIES[name]], dtype, torch.float8_e4m3fn)


@pytest.mark.parametrize("name", ["many heads per key", "head of 256"])
def test_more_queries_than_a_tile_holds(name: str) -> None:
    """The second tile begins within a row, and within another worker's."""
    scene = Scene(3, (Grow(0, 40), Grow(1, 30)), (Writer((0, 2, 1), 7), Writer((0, 1, 2), 29)))
    (tiles,) = sheet_of(planted(scene, [GEOMETRIES[name]]).current).tiles.values()
    assert tiles.shape.rows <= 128
    assert len({int(first) for first, *_ in tiles.items}) > 1, "that is what is tested"
    check(scene, [GEOMETRIES[name]], torch.float32)


@pytest.mark.parametrize("window", [None, 50])
def test_a_long_prompt_at_once(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's last slots are seen by its last queries only, its first by the first."""
    monkeypatch.setattr(backend, "programs_of", lambda _: 1)
    geometry = dataclasses.replace(GEOMETRIES["single head"], window=window)
    check(Scene(2, (Grow(0, 5),), (Writer((0, 1), 120),)), [geometry], torch.float32)


def test_more_heads_per_key_than_rows() -> None:
    """A tile then holds one query, and more rows than registers like."""
    check(
        Scene(2, (Grow(0, 66),), (Writer((0, 1), 2), Writer((1, 0), 1))),
        [Geometry(71, 1, 8, Turning(8))],
        torch.float32,
    )


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_more_items_than_are_merged_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is an item at least; a program merges sixteen at a time."""
    scene = Scene(count, (), (Writer(tuple(range(count)), 1),))
    past = tuple(Grow(block, 1 + block % 3) for block in range(count - 1))
    geometry = dataclasses.replace(GEOMETRIES["grouped"], sinks=True)
    monkeypatch.setattr(backend, "programs_of", lambda _: 10**6)
    check(dataclasses.replace(scene, past=past), [geometry], torch.float32)


@pytest.mark.parametrize("programs", [1, 4, 10**6])
def test_any_number_of_programs_gives_the_same(
    programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = (Grow(0, 190), Grow(1, 63))
    scene = Scene(3, past, (Writer((0, 2, 1), 1), Writer((0, 1, 2), 2)))
    monkeypatch.setattr(backend, "programs_of", lambda _: programs)
    check(scene, [GEOMETRIES["grouped"]], torch.float32)


def test_layers_are_not_mixed_up() -> None:
    """Layers of all kinds in one pool, asked one after the other in one pass."""
    names = ("grouped", "window", "no positions", "sinks", "latent", "partial interleaved")
    scene = Scene(3, (Grow(0, 40), Grow(1, 9)), (Writer((0, 2, 1), 1), Writer((0, 1, 2), 1)))
    check(scene, [GEOMETRIES[name] for name in names], torch.float32)


INTERLEAVED = Scene(
    3, (Grow(0, 40), Grow(1, 3), Grow(2, 5)), (Writer((0, 1), 3), Writer((0, 2), 1))
)
"""Two workers of one team, and so of one tile, who do not see each other."""

COMBINED = dataclasses.replace(INTERLEAVED, writers=(Writer((0, 2, 1), 3), Writer((0, 1, 2), 1)))
"""The same two, who see each other."""


def outcome(scene: Scene, change: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
    """The outputs of a pass whose keys and values [kv_heads, tokens, dim] were changed."""
    stage = planted(scene, [GEOMETRIES["grouped"]])
    query, key, value = stage.asks(0)
    if change is not None:
        change(key, value)
    attend = TritonAttend.of(stage.current)
    return attend(stage.pool.layers[0], query, key, value, stage.geometries[0].scoring(key.dtype))


def changed(token: int) -> Callable[[Tensor, Tensor], None]:
    """Makes a token of the packed row another one."""

    def change(key: Tensor, value: Tensor) -> None:
        key[:, token] += 1
        value[:, token] *= -2

    return change


def test_an_item_that_a_worker_does_not_see_does_not_matter() -> None:
    """Though it is in the same tile: its output does not change by a bit."""
    (tiles,) = sheet_of(planted(INTERLEAVED, [GEOMETRIES["grouped"]]).current).tiles.values()
    assert {int(count) for _, count, *_ in tiles.items} == {4}, "one tile for both"
    plain, other = outcome(INTERLEAVED), outcome(INTERLEAVED, changed(0))
    assert torch.equal(other[3], plain[3])
    assert ((other[:3] - plain[:3]).abs().amax((1, 2)) > 0.01).all()
    check(INTERLEAVED, [GEOMETRIES["grouped"]], torch.float32)


def test_what_is_written_in_a_pass_is_seen_by_the_others_in_it() -> None:
    plain = outcome(COMBINED)
    assert ((outcome(COMBINED, changed(3)) - plain).abs().amax((1, 2)) > 0.01).all()
    assert ((outcome(COMBINED, changed(0)) - plain).abs().amax((1, 2)) > 0.01).all()


def test_a_worker_is_causal_within_its_own_block() -> None:
    plain, other = outcome(COMBINED), outcome(COMBINED, changed(1))
    assert torch.equal(other[0], plain[0])
    assert ((other[1:] - plain[1:]).abs().amax((1, 2)) > 0.01).all()


@pytest.mark.parametrize(
    ("spoilt", "wrong"),
    [("key", torch.nan), ("value", torch.nan), ("both", torch.nan), ("value", torch.inf)],
)
def test_what_is_no_number_reaches_those_who_see_it_and_nobody_else(
    spoilt: str, wrong: float
) -> None:
    """One number of one token is enough, and sharing a tile is no way round."""

    def change(key: Tensor, value: Tensor) -> None:
        for name, states in (("key", key), ("value", value)):
            if spoilt in (name, "both"):
                states[1, 1, 5] = wrong

    plain, other = outcome(INTERLEAVED), outcome(INTERLEAVED, change)
    assert other[1:3, 2:].isnan().any(-1).all(), "the heads that read the second key head"
    assert torch.equal(other[[0, 3]], plain[[0, 3]])
    assert torch.equal(other[:, :2], plain[:, :2])


def strided(states: Tensor) -> Tensor:
    """The same numbers, neighbours of one head not side by side in memory."""
    return states.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("lay", [torch.Tensor.contiguous, strided])
def test_however_states_lie_in_memory(lay: Callable[[Tensor], Tensor]) -> None:
    stage = planted(COMBINED, [GEOMETRIES["latent"]])
    scoring = stage.geometries[0].scoring(torch.float32)
    asked, attend = stage.asks(0), TritonAttend.of(stage.current)
    assert asked[0].stride() != lay(asked[0]).stride()
    got = attend(stage.pool.layers[0], *map(lay, asked), scoring)
    close(got, stage.expected(0), TOLERANCES[torch.float32])


@pytest.mark.parametrize("name", ["grouped", "sinks", "soft cap under a window", "latent"])
def test_a_padded_sheet_gives_the_same_and_writes_nothing_more(name: str) -> None:
    """Padding reads zeros, and the whole cache is as without it."""
    writers = tuple(dataclasses.replace(w, count=2 * w.count - 1) for w in TEAMS.writers)
    scene = dataclasses.replace(TEAMS, writers=writers)
    plain, padded = planted(scene, [GEOMETRIES[name]]), planted(scene, [GEOMETRIES[name]])
    (expected,) = plain.read(TritonAttend.of)
    sheet = sheet_of(padded.current).padded()
    tokens = len(plain.new)
    more = len(sheet.ids) - tokens
    assert more > 0
    asked = [
        torch.cat([x, x.new_full((x.shape[0], more, x.shape[2]), GARBAGE)], 1)
        for x in padded.asks(0)
    ]
    assert isinstance(padded.pool, TritonPool)
    attend = TritonAttend(sheet.over(padded.pool.tensor(sheet.numbers())), padded.pool)
    scoring = padded.geometries[0].scoring(torch.float32)
    out = attend(padded.pool.layers[0], *asked, scoring)
    assert torch.equal(out[:tokens], expected)
    assert torch.equal(out[tokens:], torch.zeros_like(out[tokens:]))
    for got, kept in zip(storage(padded.pool), storage(plain.pool), strict=True):
        assert torch.equal(got, kept)


def rich_layers() -> list[Layer]:
    """Layers that differ in heads, sizes and rotations; two of them turn alike."""
    names = (
        "grouped",
        "no positions",
        "latent",
        "partial interleaved",
        "single head",
        "head of 80",
    )
    layers = [GEOMETRIES[name].layer(index) for index, name in enumerate(names)]
    return [*layers, dataclasses.replace(layers[0], index=len(layers), kv_heads=4)]


def planted_layers() -> list[Layer]:
    """The layers of `make_pool`, which turn differently and differ in their value size."""
    return [
        dataclasses.replace(layer, rotation=layer.rotation.to(DEVICE))
        for layer in make_pool(1, 3).layers
    ]


def filled(kind: type[CachePool], layers: Sequence[Layer], dtype: torch.dtype) -> CachePool:
    """A pool of eight pages that is full of random numbers, the same for every kind."""
    token = dtype.itemsize * sum(la.kv_heads * (la.key_dim + la.value_dim) for la in layers)
    pool = kind(layers, dtype, DEVICE, 8 * PAGE * token)
    pool._grow(8)
    drawing = torch.Generator().manual_seed(3)
    for kept in (*pool.keys, *pool.values):
        kept.copy_(torch.randn(kept.shape, generator=drawing))
    return pool


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layers", [rich_layers, planted_layers])
@pytest.mark.parametrize(("count", "shift"), [(1, 1), (16, 0), (17, 60_000), (70, 33)])
def test_tokens_move_as_in_the_torch_backend(
    layers: Callable[[], list[Layer]], dtype: torch.dtype, count: int, shift: int
) -> None:
    """In all layers at once; what is not moved stays."""
    ours, theirs = (filled(kind, layers(), dtype) for kind in (TritonPool, CachePool))
    before = storage(ours)
    slots = torch.randperm(8 * PAGE, generator=torch.Generator().manual_seed(count)).numpy()
    source, target = slots[:count], slots[count : 2 * count]
    for pool in (ours, theirs):
        pool.move(source, target, shift)
    rest = torch.from_numpy(slots[count:]).to(DEVICE)
    for index, (got, expected, old) in enumerate(
        zip(storage(ours), storage(theirs), before, strict=True)
    ):
        if shift == 0 or index >= len(ours.layers):
            assert torch.equal(got, expected)
        else:
            close(got, expected, {torch.float32: 2e-6}.get(dtype, torch.finfo(dtype).eps))
        assert not torch.equal(got, old)
        unmoved = torch.cat([rest[count:], torch.from_numpy(source).to(DEVICE)])
        assert torch.equal(got[:, unmoved], old[:, unmoved])


def test_memory_taken_at_once_is_kept() -> None:
    """Recorded passes know its addresses; on a CPU it goes back to the system."""
    pool = filled(TritonPool, rich_layers(), torch.float32)
    pool._fixed = True
    addresses = [kept.data_ptr() for kept in pool.keys]
    block = Block(pool)
    pool.reserve([(block, 5)])
    block.advance(5)
    block.free()
    assert [kept.data_ptr() for kept in pool.keys] == addresses
    assert pool.keys[0].shape[1] == 8 * PAGE
    pool._fixed = False
    pool.trim()
    assert pool.keys[0].shape[1] == 0


def test_a_recorded_run() -> None:
    """One of `test_golden.py`, up to the step after its last commit."""
    name, tolerance = "llama__combined2", 5e-4
    run: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    recorded = load_file(GOLDEN / f"{name}.safetensors")["logits"]
    model = SharedCacheModel.from_pretrained(
        GOLDEN / "models" / run["model"], device=DEVICE, dtype="float32", backend="triton"
    )
    assert isinstance(model.pool, TritonPool)
    names = {*run["prefill"], *(block for view in run["views"] for block in view)}
    blocks = {block: model.new_block() for block in names}
    for block, tokens in run["prefill"].items():
        model.forward([[blocks[block]]], [tokens])
    views = [[blocks[block] for block in view] for view in run["views"]]
    steps = run["steps"][:29]
    assert len([step for step in steps if step["commits"]]) == 2
    assert not any(step["commits"] for step in run["steps"][29:])
    for number, step in enumerate(steps):
        for commit in step["commits"]:
            blocks[commit["dst"]].extend(blocks[commit["src"]])
            blocks[commit["src"]].clear()
        logits = model.forward(views, step["inputs"])
        deviation = (logits.cpu() - recorded[number]).abs().max()
        assert deviation <= tolerance, f"step {number}: off by {deviation:.1e}"


class TestChoice:
    """Which backend is meant, and whether it runs here."""

    CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))

    def test_the_name_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "INTERPRETED", True)
        assert choose_backend("torch", self.CPU) == ("torch", CachePool, TorchAttend)
        assert choose_backend("torch", self.CUDA) == ("torch", CachePool, TorchAttend)
        assert choose_backend("triton", self.CPU) == ("triton", TritonPool, TritonAttend.of)

    def test_by_default_the_device_decides(self, caplog: pytest.LogCaptureFixture) -> None:
        assert choose_backend(None, self.CPU).name == "torch"
        assert choose_backend(None, self.CUDA).name == "triton"
        assert not caplog.records

    @pytest.mark.parametrize(
        ("device", "there", "words"),
        [("cuda", False, "cuda .* not installed"), ("mps", True, "mps .* no such target")],
    )
    def test_a_slow_choice_is_said(
        self,
        device: str,
        there: bool,
        words: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        if not there:
            monkeypatch.setattr(choice, "find_spec", lambda _: None)
        assert choose_backend(None, torch.device(device)).name == "torch"
        (record,) = caplog.records
        assert re.search(words, record.getMessage())

    def test_triton_needs_a_card_or_its_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "INTERPRETED", False)
        for device in (self.CPU, self.MPS):
            with pytest.raises(ModelLoadError, match=f"not run on {device}.*TRITON_INTERPRET=1"):
                choose_backend("triton", device)
        assert choose_backend("triton", self.CUDA).name == "triton"

    def test_triton_needs_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "find_spec", lambda _: None)
        with pytest.raises(ModelLoadError, match="pip install triton"):
            choose_backend("triton", self.CUDA)

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ModelLoadError, match=r"'flash'.*torch, triton"):
            choose_backend("flash", self.CPU)  # type: ignore[arg-type]
