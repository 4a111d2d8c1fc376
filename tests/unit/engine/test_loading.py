"""Where weights are read to, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hogwild_agents.engine import SharedCacheModel, loading
from hogwild_agents.errors import ModelLoadError
from tests.unit.engine.families import build
from tests.unit.engine.reference import LLAMA


@pytest.mark.parametrize(
    ("device", "helped", "expected"),
    [
        ("cuda:0", True, {"device_map": torch.device("cuda:0")}),
        ("cuda:0", False, {}),
        ("cpu", True, {}),
    ],
)
def test_weights_go_straight_to_a_card(
    monkeypatch: pytest.MonkeyPatch, device: str, helped: bool, expected: dict[str, Any]
) -> None:
    """Where accelerate is there to do it; no card is needed to see what transformers is asked."""
    asked: dict[str, Any] = {}

    def noted(_: str, **options: Any) -> Any:
        asked.update(options)
        raise OSError("no weights here")

    monkeypatch.setattr(loading, "choose_device", torch.device)
    monkeypatch.setattr(loading, "find_spec", lambda _: object() if helped else None)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noted)
    with pytest.raises(ModelLoadError, match="no weights here"):
        loading.load_model("somewhere", device, "auto")
    assert asked == {"dtype": "auto", "trust_remote_code": False, **expected}


def test_a_model_that_is_where_it_should_be_is_not_moved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Some quantised models refuse to be."""
    build(LLAMA).save_pretrained(tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("it was moved")

    monkeypatch.setattr(torch.nn.Module, "to", refuse)
    assert loading.load_model(tmp_path, "cpu", "auto").device.type == "cpu"


@pytest.mark.parametrize("given", ["fp4", "float16", None, 8])
def test_unknown_types_of_the_cache(given: Any) -> None:
    with pytest.raises(ModelLoadError, match=f"cache_dtype {given!r}"):
        SharedCacheModel.from_pretrained(build(LLAMA), cache_dtype=given)


@pytest.mark.parametrize("dtype", ["float31", "int8", "", torch.int64, "nn", "Tensor"])
def test_unknown_dtype(dtype: Any) -> None:
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained("nowhere", dtype=dtype)
    assert repr(dtype) in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "toaster"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ModelLoadError, match=device):
        SharedCacheModel.from_pretrained(build(LLAMA), device=device)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "no_such_model"}'])
def test_unreadable_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="missing"):
        SharedCacheModel.from_pretrained(tmp_path / "missing", device="cpu")


def test_a_folder_with_damaged_weights(tmp_path: Path) -> None:
    build(LLAMA).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError) as caught:
        SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)


def test_code_of_a_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anybody asked: on a terminal transformers would, and run it on a "y"."""
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        SharedCacheModel.from_pretrained(tmp_path, device="cpu")
    assert not (tmp_path / "ran").exists()
