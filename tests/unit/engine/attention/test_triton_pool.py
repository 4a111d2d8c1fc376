"""The triton pool: tokens move as in the torch backend, memory stays, a golden run agrees."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("triton")

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.attention.triton import TritonPool
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool, bytes_per_token
from hogwild_agents.engine.layers import Layer
from tests.unit.engine.attention.geometries import DEVICE, GEOMETRIES, TOLERANCES, close, storage
from tests.unit.engine.cache.pools import make_pool

Pool = TypeVar("Pool", bound=CachePool)
GOLDEN = Path(__file__).parents[1] / "golden"


def rich_layers() -> list[Layer]:
    """Layers that differ in heads, sizes and rotations; two of them share a rotation."""
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
    """The layers of `make_pool`, which differ in their rotation and value size."""
    return [
        dataclasses.replace(layer, rotation=layer.rotation.to(DEVICE))
        for layer in make_pool(1, 3).layers
    ]


def filled(pool_class: type[Pool], layers: Sequence[Layer], dtype: torch.dtype) -> Pool:
    """A pool of eight pages that is full of random numbers, the same for every class."""
    pool = pool_class(layers, dtype, DEVICE, 8 * PAGE * bytes_per_token(layers, dtype))
    pool._grow(8)
    drawing = torch.Generator().manual_seed(3)
    for states in (*pool.keys, *pool.values):
        states.copy_(torch.randn(states.shape, generator=drawing))
    return pool


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layers", [rich_layers, planted_layers])
@pytest.mark.parametrize(("count", "shift"), [(1, 1), (16, 0), (17, 60_000), (70, 33)])
def test_tokens_move_as_in_the_torch_backend(
    layers: Callable[[], list[Layer]], dtype: torch.dtype, count: int, shift: int
) -> None:
    """In all layers at once; other tokens stay as they are."""
    triton, plain = filled(TritonPool, layers(), dtype), filled(CachePool, layers(), dtype)
    before = storage(triton)
    slots = torch.randperm(8 * PAGE, generator=torch.Generator().manual_seed(count)).numpy()
    source, target = slots[:count], slots[count : 2 * count]
    for pool in (triton, plain):
        pool.move(source, target, shift)
    rest = torch.from_numpy(slots[count:]).to(DEVICE)
    for index, (got, expected, old) in enumerate(
        zip(storage(triton), storage(plain), before, strict=True)
    ):
        if shift == 0 or index >= len(triton.layers):
            assert torch.equal(got, expected)
        else:
            close(got, expected, {torch.float32: 2e-6}.get(dtype, torch.finfo(dtype).eps))
        assert not torch.equal(got, old)
        unmoved = torch.cat([rest[count:], torch.from_numpy(source).to(DEVICE)])
        assert torch.equal(got[:, unmoved], old[:, unmoved])


def test_memory_allocated_at_once_is_not_returned() -> None:
    """Captured passes hold its addresses; on a CPU it goes back to the system."""
    pool = filled(TritonPool, rich_layers(), torch.float32)
    pool._fixed = True
    addresses = [keys.data_ptr() for keys in pool.keys]
    block = CacheBlock(pool)
    pool.reserve([(block, 5)])
    block.advance(5)
    block.free()
    assert [keys.data_ptr() for keys in pool.keys] == addresses
    assert pool.keys[0].shape[1] == 8 * PAGE
    pool._fixed = False
    pool.trim()
    assert pool.keys[0].shape[1] == 0


def test_a_golden_run() -> None:
    """A run of `test_model_golden.py`, up to the step after its last commit."""
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
