"""Choosing a backend."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("triton")

from hogwild_agents.engine.attention import backend, triton
from hogwild_agents.engine.attention.backend import choose_backend
from hogwild_agents.engine.attention.torch import TorchAttention
from hogwild_agents.engine.attention.triton import TritonAttention, TritonPool
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import ModelLoadError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def test_the_name_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "INTERPRETED", True)
    assert choose_backend("torch", CPU) == ("torch", CachePool, TorchAttention)
    assert choose_backend("torch", CUDA) == ("torch", CachePool, TorchAttention)
    assert choose_backend("triton", CPU) == ("triton", TritonPool, TritonAttention.prepare)


def test_by_default_the_device_decides(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_backend(None, CPU).name == "torch"
    assert choose_backend(None, CUDA).name == "triton"
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "has_triton", "message"),
    [("cuda", False, "cuda .* not installed"), ("mps", True, "mps .* does not support")],
)
def test_a_slow_choice_is_logged(
    device: str,
    has_triton: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not has_triton:
        monkeypatch.setattr(backend, "find_spec", lambda _: None)
    assert choose_backend(None, torch.device(device)).name == "torch"
    (record,) = caplog.records
    assert re.search(message, record.getMessage())


def test_the_triton_backend_needs_a_card_or_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton, "INTERPRETED", False)
    for device in (CPU, MPS):
        with pytest.raises(ModelLoadError, match=f"not run on {device}.*TRITON_INTERPRET=1"):
            choose_backend("triton", device)
    assert choose_backend("triton", CUDA).name == "triton"


def test_the_triton_backend_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    with pytest.raises(ModelLoadError, match="pip install triton"):
        choose_backend("triton", CUDA)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"'flash'.*torch, triton"):
        choose_backend("flash", CPU)  # type: ignore[arg-type]
