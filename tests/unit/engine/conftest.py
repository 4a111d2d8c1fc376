"""Fixtures of the engine's tests: tiny models with peaked weights, ready to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import PreTrainedModel

from hogwild_agents.engine import Engine, SharedCacheModel
from tests.unit.engine.families import Family, build
from tests.unit.engine.jobs import SPEC, Rows, alone, load
from tests.unit.engine.reference import (
    LLAMA,
    MISTRAL,
    Reference,
    Trio,
    block_of,
    some_tokens,
)

torch.set_num_threads(1)
settings.register_profile(
    "engine",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("engine")


def _load(family: Family) -> SharedCacheModel:
    return SharedCacheModel.from_pretrained(build(family))


@pytest.fixture(scope="session")
def llama() -> SharedCacheModel:
    """A Llama with full attention; the brute-force reference can compute it too."""
    return _load(LLAMA)


@pytest.fixture(scope="session")
def mistral() -> SharedCacheModel:
    """A Mistral whose tokens see only the last seven."""
    return _load(MISTRAL)


@pytest.fixture(scope="session")
def qwen3() -> SharedCacheModel:
    """A Qwen3, which normalises its queries and keys."""
    return _load(Family("qwen3", "qwen3", {"max_position_embeddings": 4096}))


@pytest.fixture(scope="session")
def llama_reference() -> Reference:
    """The brute-force forward of `llama`."""
    return Reference(build(LLAMA))


@pytest.fixture(scope="session")
def mistral_reference() -> Reference:
    """The brute-force forward of `mistral`."""
    return Reference(build(MISTRAL))


@pytest.fixture
def trio(llama: SharedCacheModel) -> Trio:
    """A model, and blocks with a few tokens each: a prompt and two workers'."""
    prompt, alice, bob = (block_of(llama, some_tokens(5 + seed, seed)) for seed in range(3))
    return llama, prompt, alice, bob


@pytest.fixture(scope="session")
def plain_llama() -> PreTrainedModel:
    """The model of `llama` as transformers runs it."""
    return build(LLAMA)


@pytest.fixture(scope="module")
def model() -> SharedCacheModel:
    """A model that the jobs of a module share, one engine after the other."""
    return load()


@pytest.fixture(scope="module")
def rows(model: SharedCacheModel) -> Rows:
    """What `SPEC` draws when it is alone."""
    return alone(model, [SPEC])[0]


@pytest.fixture
def engine(model: SharedCacheModel, rows: Rows) -> Iterator[Engine]:
    """An engine that gives all memory back."""
    assert rows
    with Engine(model) as engine:
        yield engine
    assert model.pool.used_pages == 0
