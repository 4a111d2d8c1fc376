"""The Triton kernels against float64, into buffers that were poisoned before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.attention.triton import TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from tests.gpu.scenes import BOUNDS, DEVICE, REHEARSAL, Geometry, Scene, Writer, error, team

pytestmark = pytest.mark.gpu

GEOMETRIES = {
    "64": Geometry(32, 8, 64, 64),
    "80": Geometry(8, 4, 80, 80),
    "96, half of it turning": Geometry(8, 8, 96, 48),
    "128": Geometry(32, 8, 128, 128),
    "128, seven heads per key": Geometry(28, 4, 128, 128),
    "256": Geometry(8, 2, 256, 256),
    "256, soft cap, window": Geometry(8, 4, 256, 256, softcap=30.0, window=700),
    "latent 192/128": Geometry(16, 16, 192, 64, 128, interleaved=True, at_end=True),
    "64, sinks, window": Geometry(16, 2, 64, 64, sinks=True, window=128),
    "128, no positions": Geometry(8, 2, 128, 0),
}
SHORT = {"128": Geometry(4, 2, 32, 32), "latent 192/128": Geometry(2, 2, 24, 8, 16, at_end=True)}
"""What a rehearsal reads with."""

DTYPES = (torch.bfloat16,) if REHEARSAL else tuple(BOUNDS)

EDGES = (1, 31, 32, 33, 63, 64, 65, 127)
"""Lengths about the edges of pages and of what a program reads at a time."""


def geometry(name: str) -> Geometry:
    """By name, or a small one that stands in for it."""
    if not REHEARSAL:
        return GEOMETRIES[name]
    if name not in SHORT:
        pytest.skip("not part of a rehearsal")
    return SHORT[name]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new buffer holds NaN until somebody writes to it."""
    new_empty = torch.Tensor.new_empty

    def poisoned(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        fresh = new_empty(tensor, *arguments, **options)
        return fresh.fill_(torch.nan) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


def check(scene: Scene) -> None:
    """Asserts that the output is right, and the cache."""
    found = error(scene.run(), scene.expected())
    bound = BOUNDS[scene.dtype]
    assert found <= bound, f"off by {found:.1e} of the output's size, {bound:.0e} allowed"
    scene.check_cache()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_team_decodes(name: str, dtype: torch.dtype) -> None:
    """Four workers behind a long prompt, one of them with more than one token."""
    lengths = [150 if REHEARSAL else 3001, 33, 64, 1, 95]
    check(Scene(geometry(name), dtype, lengths, team(0, 1, [1, 1, 3, 1]), seed=1))


@pytest.mark.parametrize("workers", [5] if REHEARSAL else range(1, 9))
def test_any_number_of_workers(workers: int) -> None:
    """Whose own blocks end about the edges of pages; a new page begins for some of them."""
    lengths = [70 if REHEARSAL else 1500, *EDGES[:workers]]
    scene = Scene(geometry("128"), torch.bfloat16, lengths, team(0, 1, [1] * workers), seed=2)
    check(scene)


@pytest.mark.parametrize("name", ["128", "latent 192/128"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_cache_of_eight_bits(name: str, dtype: torch.dtype) -> None:
    """Against what is kept, so that only the arithmetic counts."""
    lengths = [150 if REHEARSAL else 2000, 33, 64]
    kind = torch.float8_e4m3fn
    check(Scene(geometry(name), dtype, lengths, team(0, 1, [1, 2]), kind, seed=3))


@pytest.mark.parametrize("name", ["128", "64, sinks, window", "256, soft cap, window"])
def test_ragged_rows(name: str) -> None:
    """One token beside dozens, in one team; more queries than a tile holds."""
    counts = [1, 7, 20, 2] if REHEARSAL else [1, 7, 61, 2, 130]
    lengths = [90 if REHEARSAL else 1111, *(17,) * len(counts)]
    check(Scene(geometry(name), torch.bfloat16, lengths, team(0, 1, counts), seed=4))


def test_many_blocks() -> None:
    """A view of two dozen, some of them empty."""
    blocks = 6 if REHEARSAL else 24
    lengths = [(37 * number) % 131 for number in range(blocks)] + [5, 64]
    every = list(range(blocks))
    writers: list[Writer] = [([*every, blocks + 1, blocks], 1), ([*every, blocks, blocks + 1], 2)]
    check(Scene(geometry("128"), torch.float32, lengths, writers, seed=5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_teams(dtype: torch.dtype) -> None:
    """In one launch, each with a prompt of its own length."""
    lengths: list[int] = []
    writers: list[Writer] = []
    for number in range(3 if REHEARSAL else 32):
        writers += team(len(lengths), len(lengths) + 1, [1, 1 + number % 2])
        lengths += [(50 if REHEARSAL else 400) + 13 * number, 30 + number, 1 + number]
    check(Scene(geometry("128"), dtype, lengths, writers, seed=6))


@pytest.mark.parametrize("name", ["128", "64, sinks, window", "latent 192/128", "256"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_long_prompt(name: str, dtype: torch.dtype) -> None:
    """Thousands of tokens in one pass, causal, behind what was there before."""
    count = 70 if REHEARSAL else 4200
    check(Scene(geometry(name), dtype, [100, 45], [([0, 1], count)], seed=7))


@pytest.mark.parametrize("wrong", [torch.inf] if REHEARSAL else [torch.nan, torch.inf])
def test_what_is_no_number_reaches_only_those_who_see_it(wrong: float) -> None:
    """Two workers of one tile who do not see each other; one writes no number."""
    writers: list[Writer] = [([0, 1], 1), ([0, 2], 1)]
    scene = Scene(geometry("128"), torch.bfloat16, [200, 33, 40], writers, seed=8)
    scene.value[0, 0, 3] = wrong
    out = scene.run()
    assert out[0].isnan().any()
    scene.value[0, 0, 3] = 0
    assert error(out[1:], scene.expected()[1:]) <= BOUNDS[torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["128", "latent 192/128", "96, half of it turning"])
def test_a_commit(name: str, dtype: torch.dtype) -> None:
    """Keys are turned on by the length of what is there, values copied, the source unharmed."""
    lengths = [(90 if REHEARSAL else 3000) + 7, 70]
    scene = Scene(geometry(name), dtype, lengths, [([0], 1)], seed=9)
    history, step = scene.blocks
    history.extend(step)
    assert torch.equal(step.keys(0), scene.keys[1])
    assert torch.equal(history.values(0)[:, lengths[0] :], scene.values[1])
    places = torch.full((lengths[1],), lengths[0], device=DEVICE)
    wanted = scene.geometry.rotate(scene.keys[1].double(), places)
    assert error(history.keys(0)[:, lengths[0] :], wanted) <= BOUNDS[dtype]
    assert torch.equal(history.keys(0)[:, : lengths[0]], scene.keys[0])


def test_slots_beyond_what_thirty_two_bits_count() -> None:
    """A block at the end of a pool of more than 2^31 numbers is read as at the beginning."""
    scene = Scene(geometry("128"), torch.bfloat16, [300, 33], [([0, 1], 1)], seed=10)
    (layer,) = scene.pool.layers
    pages = 100 if REHEARSAL else 2**31 // (layer.kv_heads * layer.key_dim * PAGE) + 64
    size = pages * PAGE * scene.pool.bytes_per_token
    far = TritonPool([layer], torch.bfloat16, DEVICE, size)
    before, block, own = (CacheBlock(far) for _ in range(3))
    far.reserve([(before, (pages - 20) * PAGE)])
    far.reserve([(block, 300), (own, 34)])
    assert block.extents[0].first >= pages - 20
    for new, old, count in ((block, scene.blocks[0], 300), (own, scene.blocks[1], 33)):
        source = scene.pool.tensor(old.slots(0, count))
        target = far.tensor(new.slots(0, count))
        far.put(far.keys[0], target, scene.pool.keys[0][:, source])
        far.put(far.values[0], target, scene.pool.values[0][:, source])
        new.advance(count)
    expected = scene.expected()
    scene.pool, scene.rows[0].view = far, [block, own]
    assert error(scene.run(), expected) <= BOUNDS[torch.bfloat16]
