"""A cache of eight-bit floats: half of the memory or less, and nearly the same numbers."""

from __future__ import annotations

import pytest
import torch

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import NotANumberError
from tests.unit.engine.families import ACCEPTED, build, embeddings
from tests.unit.engine.reference import block_of, some_tokens

ROUNDING = 2**-4
"""Of float8_e4m3fn, relative: three bits after the leading one, and the last one may be off."""


@pytest.fixture(params=["llama", "gemma2", "gpt_oss", "deepseek_v3"], scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[SharedCacheModel, SharedCacheModel]:
    """A model with a cache as computed, and with one of eight bits."""
    family = next(family for family in ACCEPTED if family.name == request.param)
    weights = build(family)
    plain, small = (
        SharedCacheModel.from_pretrained(weights, cache_dtype=kind) for kind in ("auto", "fp8")
    )
    return plain, small


def views_of(model: SharedCacheModel) -> list[list[CacheBlock]]:
    """Two workers with a prompt, of which a step was committed to it."""
    prompt, step = block_of(model, some_tokens(70)), block_of(model, some_tokens(9, 1))
    prompt.extend(step)
    alice, bob = (block_of(model, some_tokens(5, seed)) for seed in (2, 3))
    return [[prompt, bob, alice], [prompt, alice, bob]]


def test_memory(pair: tuple[SharedCacheModel, SharedCacheModel]) -> None:
    """A quarter of float32, in the storage itself."""
    plain, small = pair
    assert 4 * small.pool.bytes_per_token == plain.pool.bytes_per_token
    block_of(small, some_tokens(3))
    taken = sum(kept.nbytes for _, *both in small.pool.storage() for kept in both)
    assert taken == len(small.pool.keys[0][0]) * small.pool.bytes_per_token
    assert small.dtype == torch.float32


def test_keys_and_values(pair: tuple[SharedCacheModel, SharedCacheModel]) -> None:
    """Each is the plain one's, rounded; keys of a commit are rounded twice."""
    plain, small = pair
    for kept, rounded in zip(views_of(plain)[0], views_of(small)[0], strict=True):
        exact, near = kept.values(0), rounded.values(0).float()
        assert near.shape == exact.shape
        assert ((near - exact).abs() <= ROUNDING * exact.abs() + 2**-9).all()
        largest = kept.keys(0).abs().max()
        assert (rounded.keys(0).float() - kept.keys(0)).abs().max() <= 2 * ROUNDING * largest


def test_logits(pair: tuple[SharedCacheModel, SharedCacheModel]) -> None:
    """Near the plain ones, in whatever way the cache is read: by far nearer than to other text."""
    plain, small = pair
    exact = plain.forward(views_of(plain), [[5], [6, 7]])
    near = small.forward(views_of(small), [[5], [6, 7]])
    other = plain.forward(views_of(plain), [[9], [10, 11]])
    assert not torch.equal(near, exact)
    assert (near - exact).norm() < 0.2 * (other - exact).norm()


def test_forks_and_offloading(pair: tuple[SharedCacheModel, SharedCacheModel]) -> None:
    """Every byte is preserved."""
    _, small = pair
    block = block_of(small, some_tokens(PAGE + 3))
    twin = block.fork()
    small.forward([[twin]], [[4]])
    before = [block.keys(0).float(), twin.keys(0).float(), twin.values(1).float()]
    OffloadedBlocks([block, twin]).restore()
    after = [block.keys(0).float(), twin.keys(0).float(), twin.values(1).float()]
    assert all(torch.equal(then, now) for then, now in zip(before, after, strict=True))


def test_a_failed_pass_leaves_no_trace(pair: tuple[SharedCacheModel, SharedCacheModel]) -> None:
    """Its slots are zero again."""
    _, small = pair
    block = block_of(small, some_tokens(3))
    weights = embeddings(small.model)
    kept = weights[7].clone()
    with torch.no_grad():
        weights[7] = torch.nan
    with pytest.raises(NotANumberError):
        small.forward([[block]], [[7]])
    with torch.no_grad():
        weights[7] = kept
    assert torch.isfinite(small.forward([[block]], [[8]])).all()
