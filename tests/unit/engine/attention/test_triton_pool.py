"""The triton pool: tokens move as in the torch backend, memory that stays, and a recorded run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("triton")

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention.triton import TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from tests.unit.engine.attention.geometries import DEVICE, GEOMETRIES, TOLERANCES, close, storage
from tests.unit.engine.cache.pools import make_pool

GOLDEN = Path(__file__).parents[1] / "golden"


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
    block = CacheBlock(pool)
    pool.reserve([(block, 5)])
    block.advance(5)
    block.free()
    assert [kept.data_ptr() for kept in pool.keys] == addresses
    assert pool.keys[0].shape[1] == 8 * PAGE
    pool._fixed = False
    pool.trim()
    assert pool.keys[0].shape[1] == 0


def test_a_recorded_run() -> None:
    """One of `test_model_golden.py`, up to the step after its last commit."""
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
