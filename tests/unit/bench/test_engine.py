"""What `hogwild bench` measures, apart from the times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hogwild_agents.bench import engine as bench
from hogwild_agents.bench.contenders import Case, make_contender
from hogwild_agents.bench.engine import (
    Measurement,
    Skipped,
    cache_bytes_for,
    cases_for,
    measure,
    measure_attention,
    time_first_passes,
)
from hogwild_agents.engine import SharedCacheModel
from tests.unit.engine.families import ACCEPTED, build

TOKEN = 2 * 6 * 4 * 32 * 4
"""Bytes of a token: keys and values, layers, heads, head size, float32."""


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_cases_of_the_command(device: str, compiled: bool) -> None:
    """The static cache is compiled on a card, as `generate` does, and elsewhere on request."""
    cases = cases_for([1, 4], 256, 8, compiled, torch.device(device))
    assert len(set(cases)) == len(cases)
    labels = {(case.label, case.workers, case.teams) for case in cases}
    static = "transformers-static" + "-compiled" * (compiled or device == "cuda")
    others = {("transformers", 1, 1), ("transformers-batch", 4, 1), (static, 1, 1), (static, 4, 1)}
    ours = {("hogwild", workers, teams) for workers in (1, 4) for teams in (1, 8)}
    if compiled:
        ours |= {("hogwild-compiled", workers, teams) for _, workers, teams in ours}
    assert labels == others | ours


def test_a_measurement(shared: SharedCacheModel) -> None:
    """The limit is weights and cache over the bandwidth; every team has its own context."""
    cases = [Case("hogwild", 2, 100, teams=3), Case("transformers-static", 2, 100)]
    ticks: list[None] = []
    ours, static = measure(shared, cases, 2, 1e9, lambda: ticks.append(None))
    assert isinstance(ours, Measurement)
    assert isinstance(static, Measurement)
    assert len(ticks) == 4
    assert ours.kv_bytes == 3 * (128 + 2 * 32) * TOKEN
    assert static.kv_bytes == 2 * 128 * TOKEN
    for row in (ours, static):
        weights = sum(weight.nbytes for weight in shared.model.parameters())
        assert row.limit_ms == pytest.approx(1e3 * (weights + row.kv_bytes) / 1e9)
        assert row.bandwidth_share == pytest.approx(row.limit_ms / row.ms_per_pass)
        rate = 1e3 * row.teams * row.workers / row.ms_per_pass
        assert row.tokens_per_second == pytest.approx(rate)
        assert (row.dtype, row.cache_dtype, row.captures) == ("float32", "float32", 0)
    assert shared.pool.used_pages == 0


def test_cases_without_room_are_skipped(shared: SharedCacheModel) -> None:
    """With the reason; the others are timed, and all memory is freed."""
    small = SharedCacheModel.from_pretrained(
        shared.model, cache_bytes=20 * 32 * TOKEN, self_check=False
    )
    cases = [Case("hogwild", 1, 10_000), Case("hogwild", 1, 50), Case("hogwild", 1, 2**21)]
    full, far, row = sorted(
        measure(small, cases, 1, 1e9, lambda: None),
        key=lambda line: isinstance(line, Measurement),
    )
    assert isinstance(full, Skipped)
    assert isinstance(far, Skipped)
    assert isinstance(row, Measurement)
    assert full.case == cases[0]
    assert "pages" in full.reason
    assert "1,048,576" in far.reason
    assert row.context == 50
    assert small.pool.used_pages == 0


def test_other_errors_are_raised(shared: SharedCacheModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(bench, "make_contender", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        list(measure(shared, [Case("hogwild", 1, 5)], 1, 1e9, lambda: None))


def test_a_cache_of_eight_bits(shared: SharedCacheModel) -> None:
    """Ours takes a quarter of float32; plain transformers keeps its own."""
    small = SharedCacheModel.from_pretrained(shared.model, cache_dtype="fp8")
    ours, plain = measure(
        small, [Case("hogwild", 1, 96), Case("transformers", 1, 96)], 1, 1e9, lambda: None
    )
    assert isinstance(ours, Measurement)
    assert isinstance(plain, Measurement)
    assert ours.kv_bytes == 128 * TOKEN // 4
    assert ours.cache_dtype == "float8_e4m3fn"
    assert plain.cache_dtype == ours.dtype == "float32"


def test_attention_is_measured_alone(shared: SharedCacheModel) -> None:
    """Every key and value counts once, also those of this pass; all memory is freed."""
    row = measure_attention(shared, 3, 200, 1e9)
    assert row.engine == "attention"
    assert row.kv_bytes == 203 * TOKEN
    assert row.limit_ms == pytest.approx(1e3 * 203 * TOKEN / 1e9)
    assert shared.pool.used_pages == 0


def test_only_keys_within_a_window_are_counted(shared: SharedCacheModel) -> None:
    windowed = SharedCacheModel.from_pretrained(shared.model, self_check=False)
    windowed.layers = tuple(
        dataclasses.replace(layer, window=50 if layer.index else None) for layer in windowed.layers
    )
    assert measure_attention(windowed, 2, 100, 1e9).kv_bytes == (102 + 5 * 50) * TOKEN // 6


def test_a_cache_is_sized_on_a_card_only(shared: SharedCacheModel) -> None:
    assert cache_bytes_for(shared.model, [[Case("hogwild", 1, 5)]], 9) is None


def test_first_passes(shared: SharedCacheModel) -> None:
    """On a CPU nothing is captured; all memory is freed."""
    seconds, captures = time_first_passes(shared, 2)
    assert seconds > 0
    assert captures == 0
    assert shared.pool.used_pages == 0


def test_captures_are_counted_and_warm_up_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first pass is launched, the second captured; those that follow are replayed."""
    pytest.importorskip("triton")
    from hogwild_agents.engine.attention import cuda_graphs

    replayed: list[None] = []

    def capture(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        result = run().clone()

        def replay() -> None:
            replayed.append(None)
            result.copy_(run())

        return result, replay

    family = next(family for family in ACCEPTED if family.name == "llama-mqa")
    model = SharedCacheModel.from_pretrained(build(family), backend="triton", self_check=False)
    graphs = cuda_graphs.CudaGraphRunner(model.pool, model.run_model, capture)
    monkeypatch.setattr(model, "graphs", graphs)
    contender = make_contender(model, Case("hogwild", 1, 40), 2)
    assert contender.captures() == 1
    assert len(replayed) == 3
    contender.close()
    assert time_first_passes(model, 1)[1] == 1
    (row,) = measure(model, [Case("hogwild", 1, 40)], 2, 1e9, lambda: None)
    assert isinstance(row, Measurement)
    assert row.captures == 0
