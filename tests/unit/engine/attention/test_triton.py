"""The triton backend against the torch backend and against brute force in float64.

Without a CUDA card its kernels run in Triton's interpreter, so inputs are small and chosen to be
rich: any scene of `scenes.py`, read by layers of every geometry that the engine knows.
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
from hogwild_agents.engine.attention.triton import TritonAttend, TritonPool, sheet_of
from tests.unit.engine.attention.geometries import (
    COUNTS,
    GARBAGE,
    GEOMETRIES,
    TOLERANCES,
    Geometry,
    Turning,
    check,
    close,
    planted,
    storage,
)
from tests.unit.engine.attention.scenes import Commit, Fork, Grow, Scene, Writer, scenes

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
