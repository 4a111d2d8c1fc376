"""Which backend is meant, and whether it runs here."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("triton")

from hogwild_agents.engine.attention import backend as choice
from hogwild_agents.engine.attention import triton as backend
from hogwild_agents.engine.attention.backend import choose_backend
from hogwild_agents.engine.attention.torch import TorchAttend
from hogwild_agents.engine.attention.triton import TritonAttend, TritonPool
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import ModelLoadError


class TestChoice:
    """Which backend is meant, and whether it runs here."""

    CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))

    def test_the_name_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "INTERPRETED", True)
        assert choose_backend("torch", self.CPU) == ("torch", CachePool, TorchAttend)
        assert choose_backend("torch", self.CUDA) == ("torch", CachePool, TorchAttend)
        assert choose_backend("triton", self.CPU) == ("triton", TritonPool, TritonAttend.of)

    def test_by_default_the_device_decides(self, caplog: pytest.LogCaptureFixture) -> None:
        assert choose_backend(None, self.CPU).name == "torch"
        assert choose_backend(None, self.CUDA).name == "triton"
        assert not caplog.records

    @pytest.mark.parametrize(
        ("device", "there", "words"),
        [("cuda", False, "cuda .* not installed"), ("mps", True, "mps .* no such target")],
    )
    def test_a_slow_choice_is_said(
        self,
        device: str,
        there: bool,
        words: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        if not there:
            monkeypatch.setattr(choice, "find_spec", lambda _: None)
        assert choose_backend(None, torch.device(device)).name == "torch"
        (record,) = caplog.records
        assert re.search(words, record.getMessage())

    def test_triton_needs_a_card_or_its_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "INTERPRETED", False)
        for device in (self.CPU, self.MPS):
            with pytest.raises(ModelLoadError, match=f"not run on {device}.*TRITON_INTERPRET=1"):
                choose_backend("triton", device)
        assert choose_backend("triton", self.CUDA).name == "triton"

    def test_triton_needs_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "find_spec", lambda _: None)
        with pytest.raises(ModelLoadError, match="pip install triton"):
            choose_backend("triton", self.CUDA)

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ModelLoadError, match=r"'flash'.*torch, triton"):
            choose_backend("flash", self.CPU)  # type: ignore[arg-type]
