"""Recorded runs of the authors' published code (golden/README.md), replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hogwild_agents.engine import SharedCacheModel

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 5e-4
RUNS = (
    "llama__combined2",
    "qwen2__contiguous3",
    "qwen2__interleaved2",
    "qwen2_yarn__combined2_fixed",
)


@pytest.mark.parametrize("name", RUNS)
def test_recorded_run(name: str) -> None:
    run: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    recorded = load_file(GOLDEN / f"{name}.safetensors")
    folder = GOLDEN / "models" / run["model"]
    model = SharedCacheModel.from_pretrained(folder, device="cpu", dtype="float32")
    names = {*run["prefill"], *(block for view in run["views"] for block in view)}
    blocks = {block: model.new_block() for block in names}
    for block, tokens in run["prefill"].items():
        model.forward([[blocks[block]]], [tokens])
    views = [[blocks[block] for block in view] for view in run["views"]]
    assert [view[-1] for view in run["views"]] == run["write_to"]

    assert len(run["steps"]) == len(run["block_lengths_after_step"]) == len(recorded["logits"])
    for number, step in enumerate(run["steps"]):
        for commit in step["commits"]:
            blocks[commit["dst"]].extend(blocks[commit["src"]])
            blocks[commit["src"]].clear()
        logits = model.forward(views, step["inputs"])
        deviation = (logits - recorded["logits"][number]).abs().max()
        assert deviation <= TOLERANCE, f"step {number}: off by {deviation:.1e}"
        lengths = {block: len(blocks[block]) for block in names}
        assert lengths == run["block_lengths_after_step"][number], f"step {number}"

    if "combined" in name:
        assert set(recorded) == {"logits", *run["final_kv"]}
    for tensor in recorded.keys() - {"logits"}:
        block, layer, kind = tensor.rsplit(".", 2)
        read = blocks[block].keys if kind == "k" else blocks[block].values
        got = read(int(layer))
        assert list(got.shape) == run["final_kv"][tensor]
        assert (got - recorded[tensor]).abs().max() <= TOLERANCE, tensor


def test_recorded_logits_are_sensitive_to_a_wrong_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every rotation off by one position, a run is off by far more than the tolerance."""
    run = json.loads((GOLDEN / "llama__combined2.json").read_text())
    recorded = load_file(GOLDEN / "llama__combined2.safetensors")["logits"]
    model = SharedCacheModel.from_pretrained(GOLDEN / "models" / "llama", device="cpu")
    rotation = type(model.layers[0].rotation)
    table = rotation.table
    monkeypatch.setattr(rotation, "table", lambda self, shifts: table(self, shifts + 1))
    names = {*run["prefill"], *(block for view in run["views"] for block in view)}
    blocks = {block: model.new_block() for block in names}
    for block, tokens in run["prefill"].items():
        model.forward([[blocks[block]]], [tokens])
    views = [[blocks[block] for block in view] for view in run["views"]]
    logits = model.forward(views, run["steps"][0]["inputs"])
    assert (logits - recorded[0]).abs().max() > 100 * TOLERANCE
    assert torch.isfinite(logits).all()
