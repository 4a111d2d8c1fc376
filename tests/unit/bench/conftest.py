"""The model that the benchmarks are tested with."""

from __future__ import annotations

import pytest
import torch

from hogwild_agents.bench.random_model import build_shape
from hogwild_agents.engine import SharedCacheModel


@pytest.fixture(scope="package")
def shared() -> SharedCacheModel:
    """A small model with random weights, on the CPU."""
    return SharedCacheModel.from_pretrained(build_shape("5m", torch.float32, torch.device("cpu")))
