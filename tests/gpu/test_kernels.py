"""The Triton kernels against float64, with output buffers filled with NaN."""

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
    "96, half of it rotating": Geometry(8, 8, 96, 48),
    "128": Geometry(32, 8, 128, 128),
    "128, seven heads per key": Geometry(28, 4, 128, 128),
    "256": Geometry(8, 2, 256, 256),
    "256, soft cap, window": Geometry(8, 4, 256, 256, softcap=30.0, window=700),
    "latent 192/128": Geometry(16, 16, 192, 64, 128, interleaved=True, at_end=True),
    "64, sinks, window": Geometry(16, 2, 64, 64, sinks=True, window=128),
    "128, no positions": Geometry(8, 2, 128, 0),
}
SHORT = {"128": Geometry(4, 2, 32, 32), "latent 192/128": Geometry(2, 2, 24, 8, 16, at_end=True)}
"""The geometries of a rehearsal."""

DTYPES = (torch.bfloat16,) if REHEARSAL else tuple(BOUNDS)

EDGES = (1, 31, 32, 33, 63, 64, 65, 127)
"""Lengths around the edges of pages and of what a program reads at a time."""


def geometry(name: str) -> Geometry:
    """The geometry of a name; in a rehearsal a small one that stands in for it."""
    if not REHEARSAL:
        return GEOMETRIES[name]
    if name not in SHORT:
        pytest.skip("not part of a rehearsal")
    return SHORT[name]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new buffer is filled with NaN."""
    new_empty = torch.Tensor.new_empty

    def poisoned(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        buffer = new_empty(tensor, *arguments, **options)
        return buffer.fill_(torch.nan) if buffer.is_floating_point() else buffer

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


def check(scene: Scene) -> None:
    """Asserts that the output and the cache are right."""
    deviation = error(scene.run(), scene.expected())
    bound = BOUNDS[scene.dtype]
    assert deviation <= bound, f"off by {deviation:.1e} of the output's size, {bound:.0e} allowed"
    scene.check_cache()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_team_decodes(name: str, dtype: torch.dtype) -> None:
    """Four workers with a long prompt, one of them with more than one token."""
    lengths = [150 if REHEARSAL else 3001, 33, 64, 1, 95]
    check(Scene(geometry(name), dtype, lengths, team(0, 1, [1, 1, 3, 1]), seed=1))


@pytest.mark.parametrize("workers", [5] if REHEARSAL else range(1, 9))
def test_any_number_of_workers(workers: int) -> None:
    """Their own blocks end around the edges of pages; some of them begin a new page."""
    lengths = [70 if REHEARSAL else 1500, *EDGES[:workers]]
    scene = Scene(geometry("128"), torch.bfloat16, lengths, team(0, 1, [1] * workers), seed=2)
    check(scene)


@pytest.mark.parametrize("name", ["128", "latent 192/128"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_cache_of_eight_bits(name: str, dtype: torch.dtype) -> None:
    """Compared with what is stored, so that only the arithmetic counts."""
    lengths = [150 if REHEARSAL else 2000, 33, 64]
    cache_dtype = torch.float8_e4m3fn
    check(Scene(geometry(name), dtype, lengths, team(0, 1, [1, 2]), cache_dtype, seed=3))


@pytest.mark.parametrize("name", ["128", "64, sinks, window", "256, soft cap, window"])
def test_ragged_rows(name: str) -> None:
    """Workers of one team write one token or dozens; more queries than a tile holds."""
    counts = [1, 7, 20, 2] if REHEARSAL else [1, 7, 61, 2, 130]
    lengths = [90 if REHEARSAL else 1111, *(17,) * len(counts)]
    check(Scene(geometry(name), torch.bfloat16, lengths, team(0, 1, counts), seed=4))


def test_many_blocks() -> None:
    """Views of two dozen blocks, some of them empty."""
    blocks = 6 if REHEARSAL else 24
    lengths = [(37 * number) % 131 for number in range(blocks)] + [5, 64]
    shared = list(range(blocks))
    writers: list[Writer] = [
        ([*shared, blocks + 1, blocks], 1),
        ([*shared, blocks, blocks + 1], 2),
    ]
    check(Scene(geometry("128"), torch.float32, lengths, writers, seed=5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_teams(dtype: torch.dtype) -> None:
    """In one launch, each with a prompt of a different length."""
    lengths: list[int] = []
    writers: list[Writer] = []
    for number in range(3 if REHEARSAL else 32):
        writers += team(len(lengths), len(lengths) + 1, [1, 1 + number % 2])
        lengths += [(50 if REHEARSAL else 400) + 13 * number, 30 + number, 1 + number]
    check(Scene(geometry("128"), dtype, lengths, writers, seed=6))


@pytest.mark.parametrize("name", ["128", "64, sinks, window", "latent 192/128", "256"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_long_prompt(name: str, dtype: torch.dtype) -> None:
    """Thousands of tokens in one pass, causal, after an older context."""
    count = 70 if REHEARSAL else 4200
    check(Scene(geometry(name), dtype, [100, 45], [([0, 1], count)], seed=7))


@pytest.mark.parametrize("number", [torch.inf] if REHEARSAL else [torch.nan, torch.inf])
def test_nan_reaches_only_the_queries_that_see_it(number: float) -> None:
    """Two workers of one tile do not see each other; one of them writes NaN or infinity."""
    writers: list[Writer] = [([0, 1], 1), ([0, 2], 1)]
    scene = Scene(geometry("128"), torch.bfloat16, [200, 33, 40], writers, seed=8)
    scene.value[0, 0, 3] = number
    out = scene.run()
    assert out[0].isnan().any()
    scene.value[0, 0, 3] = 0
    assert error(out[1:], scene.expected()[1:]) <= BOUNDS[torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["128", "latent 192/128", "96, half of it rotating"])
def test_a_commit(name: str, dtype: torch.dtype) -> None:
    """Keys are rotated by the length of the target, values copied, the source left unchanged."""
    lengths = [(90 if REHEARSAL else 3000) + 7, 70]
    scene = Scene(geometry(name), dtype, lengths, [([0], 1)], seed=9)
    history, step = scene.blocks
    history.extend(step)
    assert torch.equal(step.keys(0), scene.keys[1])
    assert torch.equal(history.values(0)[:, lengths[0] :], scene.values[1])
    shifts = torch.full((lengths[1],), lengths[0], device=DEVICE)
    expected = scene.geometry.rotate(scene.keys[1].double(), shifts)
    assert error(history.keys(0)[:, lengths[0] :], expected) <= BOUNDS[dtype]
    assert torch.equal(history.keys(0)[:, : lengths[0]], scene.keys[0])


def test_slots_beyond_thirty_two_bits() -> None:
    """A block at the end of a pool of more than 2^31 numbers is read like one at the beginning."""
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
