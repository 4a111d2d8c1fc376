"""How far positions reach, and how much memory a cache may take by default."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import torch
from transformers import BloomConfig, Gemma3Config, LlamaConfig, Phi3Config

from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.limits import default_cache_bytes, freeze_longrope, position_limit
from hogwild_agents.errors import ModelLoadError
from tests.unit.engine.families import LLAMA3_ROPE, YARN, build
from tests.unit.engine.reference import LLAMA


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """Rotary parameters of a configuration."""
    return {"rope_type": kind, "rope_theta": 10_000.0, **parameters}


@pytest.mark.parametrize(
    ("stated", "parameters", "expected"),
    [
        (2048, rope("default"), 2048),
        (2048, rope("linear", factor=4.0), 8192),
        # YaRN: stated before scaling (Qwen3) or after it (DeepSeek) gives the same.
        (64, rope("yarn", factor=4.0, original_max_position_embeddings=64), 256),
        (256, rope("yarn", factor=4.0, original_max_position_embeddings=64), 256),
        (64, rope("yarn", factor=4.0), 256),
        (300, rope("yarn", factor=4.0, original_max_position_embeddings=64), 300),
        (64, rope("yarn", factor=2.5, original_max_position_embeddings=63), 157),
        # Llama 3 states what it was trained for after scaling.
        (256, LLAMA3_ROPE, 256),
        (64, {**LLAMA3_ROPE, "original_max_position_embeddings": 16}, 64),
    ],
)
def test_position_limit(stated: int, parameters: dict[str, Any], expected: int) -> None:
    config = LlamaConfig(max_position_embeddings=stated, rope_parameters=parameters)
    assert position_limit(config) == expected


def test_one_table_for_each_kind_of_layer() -> None:
    """The table that reaches furthest counts."""
    config = Gemma3Config(
        text_config={
            "max_position_embeddings": 100,
            "rope_parameters": {
                "sliding_attention": rope("default"),
                "full_attention": rope("linear", factor=8.0),
            },
        }
    )
    assert position_limit(config) == 800


def test_a_model_without_a_limit() -> None:
    assert position_limit(BloomConfig()) == sys.maxsize


def test_max_length_of_a_loaded_model() -> None:
    assert SharedCacheModel.from_pretrained(build(LLAMA)).max_length == 4096
    assert SharedCacheModel.from_pretrained(build(LLAMA), max_length=100).max_length == 100


def test_models_without_longrope_have_nothing_to_freeze() -> None:
    assert freeze_longrope(build(LLAMA), None) is None
    assert freeze_longrope(build(LLAMA), 10**6) is None


def test_longrope_states_its_limit_after_scaling() -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = Phi3Config(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=1024,
        original_max_position_embeddings=256,
        rope_parameters=rope("longrope", **factors, original_max_position_embeddings=256),
    )
    assert position_limit(config) == 1024


def test_yarn_in_the_table_of_families_reaches_its_scaled_length() -> None:
    config = LlamaConfig(max_position_embeddings=64, rope_parameters=YARN)
    assert position_limit(config) == 256


def test_default_cache_is_half_of_the_memory() -> None:
    limit = default_cache_bytes(torch.device("cpu"), 0.9)
    assert 0 < limit <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def test_default_cache_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert default_cache_bytes(torch.device("cpu"), 0.9) > 0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A card with memory that is free or not, for want of a real one."""
    memory = {"free": 60, "total": 100}
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (memory["free"] << 30, memory["total"] << 30)
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return memory


@pytest.mark.parametrize(
    ("free", "share", "expected"), [(60, 0.9, 50), (100, 1.0, 100), (60, 0.5, 10)]
)
def test_a_card_keeps_a_share_of_its_memory_free(
    card: dict[str, int], free: int, share: float, expected: int
) -> None:
    """Whoever took the rest; here, what the weights take is what is not free."""
    card["free"] = free
    assert default_cache_bytes(torch.device("cuda"), share) == pytest.approx(expected << 30)


def test_a_card_that_the_weights_fill(card: dict[str, int]) -> None:
    card["free"] = 10
    with pytest.raises(ModelLoadError, match=r"10\.0 of 100\.0 GiB.*gpu_memory_utilization=0\.8"):
        default_cache_bytes(torch.device("cuda"), 0.8)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, 90])
def test_what_is_no_share(share: float) -> None:
    with pytest.raises(ModelLoadError, match="above 0 and at most 1"):
        SharedCacheModel.from_pretrained(build(LLAMA), gpu_memory_utilization=share)
