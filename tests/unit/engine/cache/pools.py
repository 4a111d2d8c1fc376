"""Pools with planted contents: a block's tokens determine its keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation

DIM = 4


def make_pool(pages: int, layers: int = 2) -> CachePool:
    """A pool of so many pages, whose layers differ in rotation and value size."""
    made = []
    for index in range(layers):
        frequency = torch.tensor([-1.0, -0.01, 1.0, 0.01], dtype=torch.float64) / (index + 1)
        rotation = Rotation(f"planted {index}", torch.tensor([2, 3, 0, 1]), frequency)
        made.append(Layer(index, 4, 2, DIM, DIM + index, rotation, None))
    token = 4 * sum(layer.kv_heads * (layer.key_dim + layer.value_dim) for layer in made)
    return CachePool(made, torch.float32, torch.device("cpu"), pages * PAGE * token)


def write(block: CacheBlock, tokens: list[int]) -> None:
    """Appends `tokens` as a pass would."""
    block.pool.reserve([(block, len(tokens))])
    fill(block, tokens)


def fill(block: CacheBlock, tokens: list[int]) -> None:
    """Puts `tokens` into reserved room; a token's number can be read back from its value."""
    pool, start = block.pool, len(block)
    slots = pool.tensor(block.slots(start, start + len(tokens)))
    for layer, keys, values in pool.storage():
        for offset, token in enumerate(tokens):
            unrotated = key_of(token, layer.kv_heads)
            keys[:, slots[offset]] = layer.rotation.rotate(unrotated, start + offset)
            values[:, slots[offset]] = float(token)
    block.advance(len(tokens))


def key_of(token: int, heads: int) -> Tensor:
    """The unrotated key of a token: [heads, DIM]."""
    return torch.sin(torch.arange(1, heads * DIM + 1) * (token + 1.0)).view(heads, DIM)


def check_contents(block: CacheBlock, tokens: list[int]) -> None:
    """Asserts that a block holds `tokens`, with keys rotated to block-local positions."""
    assert len(block) == len(tokens)
    for layer in block.pool.layers:
        values = block.values(layer.index)
        expected = torch.tensor(tokens, dtype=torch.float32).view(1, -1, 1).expand_as(values)
        assert torch.equal(values, expected)
        keys = block.keys(layer.index)
        assert keys.shape == (layer.kv_heads, len(tokens), DIM)
        if tokens:
            unrotated = [key_of(token, layer.kv_heads) for token in tokens]
            rotated = [layer.rotation.rotate(key, place) for place, key in enumerate(unrotated)]
            torch.testing.assert_close(keys, torch.stack(rotated, 1), atol=1e-4, rtol=0)


def pages_of(block: CacheBlock) -> list[int]:
    """The numbers of a block's pages in order."""
    return [page for e in block.extents for page in range(e.first, e.first + e.count)]
