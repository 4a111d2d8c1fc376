"""The triton backend against the torch backend and against brute force in float64.

Without a CUDA card its kernels run in Triton's interpreter, so inputs are small but varied: any
scene of `scenes.py`, read by layers of every geometry that the engine supports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from hogwild_agents.engine.attention import triton as backend
from hogwild_agents.engine.attention.triton import TritonAttention, TritonPool, metadata_of
from tests.unit.engine.attention.geometries import (
    COUNTS,
    GARBAGE,
    GEOMETRIES,
    TOLERANCES,
    Geometry,
    Rotary,
    check,
    close,
    planted,
    storage,
)
from tests.unit.engine.attention.scenes import Commit, Fork, Grow, Scene, Writer, scenes

NAMES = st.lists(  # geometries of few heads, for the interpreter
    st.sampled_from([name for name, geometry in GEOMETRIES.items() if geometry.heads <= 4]),
    min_size=1,
    max_size=2,
    unique=True,
)


@given(scenes(COUNTS), NAMES)
@settings(max_examples=50)
def test_any_scene_agrees_with_brute_force(scene: Scene, names: list[str]) -> None:
    """Two backends and the definition: the same outputs, and the same cache afterwards."""
    check(scene, [GEOMETRIES[name] for name in names], torch.float32)


COMPONENTS = Scene(
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
    fragmented=True,
)
"""Three components whose rows are interleaved, fragmented blocks, a fork next to its original, a
committed step, empty blocks, and a worker whose own block begins far away."""


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry(name: str) -> None:
    check(COMPONENTS, [GEOMETRIES[name]], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["grouped", "soft cap under a window", "latent", "no positions"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    check(COMPONENTS, [GEOMETRIES[name]], dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["grouped", "latent"])
def test_an_eight_bit_cache(name: str, dtype: torch.dtype) -> None:
    """Keys and values are rounded once, when they are stored."""
    past = tuple(step for step in COMPONENTS.past if not isinstance(step, Commit))
    scene = dataclasses.replace(COMPONENTS, past=past)
    check(scene, [GEOMETRIES[name]], dtype, torch.float8_e4m3fn)


@pytest.mark.parametrize("name", ["many heads per key", "head of 256"])
def test_more_queries_than_a_tile_holds(name: str) -> None:
    """The second tile begins within a row, and within another worker's."""
    scene = Scene(3, (Grow(0, 40), Grow(1, 30)), (Writer((0, 2, 1), 7), Writer((0, 1, 2), 29)))
    (metadata,) = metadata_of(planted(scene, [GEOMETRIES[name]]).current).kinds.values()
    assert metadata.shape.rows <= 128
    assert len({int(query) for query, *_ in metadata.splits}) > 1, "that is what is tested"
    check(scene, [GEOMETRIES[name]], torch.float32)


@pytest.mark.parametrize("window", [None, 50])
def test_a_long_prompt_at_once(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last slots of a split are visible to the last queries only, the first to the first."""
    monkeypatch.setattr(backend, "programs_of", lambda _: 1)
    geometry = dataclasses.replace(GEOMETRIES["single head"], window=window)
    check(Scene(2, (Grow(0, 5),), (Writer((0, 1), 120),)), [geometry], torch.float32)


def test_more_heads_per_key_than_rows() -> None:
    """A tile then holds one query, and more rows than registers hold."""
    check(
        Scene(2, (Grow(0, 66),), (Writer((0, 1), 2), Writer((1, 0), 1))),
        [Geometry(71, 1, 8, Rotary(8))],
        torch.float32,
    )


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_more_splits_than_are_merged_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is at least one split; a program merges sixteen at a time."""
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
    """Layers of all kinds in one pool, called one after the other in one pass."""
    names = ("grouped", "window", "no positions", "sinks", "latent", "partial interleaved")
    scene = Scene(3, (Grow(0, 40), Grow(1, 9)), (Writer((0, 2, 1), 1), Writer((0, 1, 2), 1)))
    check(scene, [GEOMETRIES[name] for name in names], torch.float32)


INTERLEAVED = Scene(
    3, (Grow(0, 40), Grow(1, 3), Grow(2, 5)), (Writer((0, 1), 3), Writer((0, 2), 1))
)
"""Two workers of one component, and so of one tile, that do not see each other."""

COMBINED = dataclasses.replace(INTERLEAVED, writers=(Writer((0, 2, 1), 3), Writer((0, 1, 2), 1)))
"""The same two, which see each other."""


def outcome(scene: Scene, change: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
    """The outputs of a pass after a change to its keys and values [kv_heads, tokens, dim]."""
    stage = planted(scene, [GEOMETRIES["grouped"]])
    query, key, value = stage.states(0)
    if change is not None:
        change(key, value)
    attention = TritonAttention.prepare(stage.current)
    return attention(
        stage.pool.layers[0], query, key, value, stage.geometries[0].scoring(key.dtype)
    )


def changed(token: int) -> Callable[[Tensor, Tensor], None]:
    """Changes the key and value of a packed token."""

    def change(key: Tensor, value: Tensor) -> None:
        key[:, token] += 1
        value[:, token] *= -2

    return change


def test_a_block_that_a_worker_does_not_see_does_not_matter() -> None:
    """Though it is read for the same tile: the worker's output does not change by a bit."""
    (metadata,) = metadata_of(planted(INTERLEAVED, [GEOMETRIES["grouped"]]).current).kinds.values()
    assert {int(queries) for _, queries, *_ in metadata.splits} == {4}, "one tile for both"
    plain, other = outcome(INTERLEAVED), outcome(INTERLEAVED, changed(0))
    assert torch.equal(other[3], plain[3])
    assert ((other[:3] - plain[:3]).abs().amax((1, 2)) > 0.01).all()
    check(INTERLEAVED, [GEOMETRIES["grouped"]], torch.float32)


def test_workers_see_what_others_write_in_the_same_pass() -> None:
    plain = outcome(COMBINED)
    assert ((outcome(COMBINED, changed(3)) - plain).abs().amax((1, 2)) > 0.01).all()
    assert ((outcome(COMBINED, changed(0)) - plain).abs().amax((1, 2)) > 0.01).all()


def test_a_worker_is_causal_within_its_own_block() -> None:
    plain, other = outcome(COMBINED), outcome(COMBINED, changed(1))
    assert torch.equal(other[0], plain[0])
    assert ((other[1:] - plain[1:]).abs().amax((1, 2)) > 0.01).all()


@pytest.mark.parametrize(
    ("spoilt", "number"),
    [("key", torch.nan), ("value", torch.nan), ("both", torch.nan), ("value", torch.inf)],
)
def test_nan_reaches_the_queries_that_see_it_and_no_others(spoilt: str, number: float) -> None:
    """One number of one token is enough; queries of the same tile that do not see it are spared."""

    def change(key: Tensor, value: Tensor) -> None:
        for name, states in (("key", key), ("value", value)):
            if spoilt in (name, "both"):
                states[1, 1, 5] = number

    plain, other = outcome(INTERLEAVED), outcome(INTERLEAVED, change)
    assert other[1:3, 2:].isnan().any(-1).all(), "the heads that read the second key head"
    assert torch.equal(other[[0, 3]], plain[[0, 3]])
    assert torch.equal(other[:, :2], plain[:, :2])


def strided(states: Tensor) -> Tensor:
    """The same numbers, with the dimensions of a head not contiguous in memory."""
    return states.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("arrange", [torch.Tensor.contiguous, strided])
def test_any_memory_layout_of_states(arrange: Callable[[Tensor], Tensor]) -> None:
    stage = planted(COMBINED, [GEOMETRIES["latent"]])
    scoring = stage.geometries[0].scoring(torch.float32)
    query, key, value = stage.states(0)
    attention = TritonAttention.prepare(stage.current)
    assert query.stride() != arrange(query).stride()
    layer = stage.pool.layers[0]
    got = attention(layer, arrange(query), arrange(key), arrange(value), scoring)
    close(got, stage.expected(0), TOLERANCES[torch.float32])


@pytest.mark.parametrize("name", ["grouped", "sinks", "soft cap under a window", "latent"])
def test_padding_changes_no_output_and_writes_nothing(name: str) -> None:
    """The outputs of padding are zeros, and the cache is the same as without it."""
    writers = tuple(dataclasses.replace(w, count=2 * w.count - 1) for w in COMPONENTS.writers)
    scene = dataclasses.replace(COMPONENTS, writers=writers)
    plain, padded = planted(scene, [GEOMETRIES[name]]), planted(scene, [GEOMETRIES[name]])
    (expected,) = plain.run(TritonAttention.prepare)
    metadata = metadata_of(padded.current).padded()
    tokens = len(plain.new)
    more = len(metadata.input_ids) - tokens
    assert more > 0
    query, key, value = (
        torch.cat([x, x.new_full((x.shape[0], more, x.shape[2]), GARBAGE)], 1)
        for x in padded.states(0)
    )
    assert isinstance(padded.pool, TritonPool)
    on_device = metadata.unflatten(padded.pool.tensor(metadata.flatten()))
    attention = TritonAttention(on_device, padded.pool)
    scoring = padded.geometries[0].scoring(torch.float32)
    out = attention(padded.pool.layers[0], query, key, value, scoring)
    assert torch.equal(out[:tokens], expected)
    assert torch.equal(out[tokens:], torch.zeros_like(out[tokens:]))
    for got, expected_states in zip(storage(padded.pool), storage(plain.pool), strict=True):
        assert torch.equal(got, expected_states)
