"""What `hogwild bench` and `python -m tests.gpu` count, apart from the clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from hogwild_agents.bench import engine as bench
from hogwild_agents.bench.contenders import Entry, attention_of, make_contender
from hogwild_agents.bench.engine import (
    LeftOut,
    Measurement,
    attention_alone,
    build_shape,
    cache_bytes_for,
    copy_bandwidth,
    entries_of,
    first_passes,
    measure,
)
from hogwild_agents.bench.profiling import (
    HOST,
    covered,
    kernels_of,
    part_of,
    profile_entry,
    summed_up,
)
from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.attention.interface import NAME, shared_cache_attention
from tests.gpu.bars import REAL, TINY, Bar, bars_of, report, table
from tests.unit.engine.families import ACCEPTED, build

CPU = torch.device("cpu")
TOKEN = 2 * 6 * 4 * 32 * 4
"""Bytes of a token: keys and values, layers, heads, head size, float32."""


@pytest.fixture(scope="module")
def shared() -> SharedCacheModel:
    """The small shape."""
    return SharedCacheModel.from_pretrained(build_shape("5m", torch.float32, CPU))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_whom_the_command_times(device: str, compiled: bool) -> None:
    """The static cache is compiled on a card, as `generate` does; elsewhere if one asks for it."""
    entries = entries_of([1, 4], 256, 8, compiled, torch.device(device))
    assert len(set(entries)) == len(entries)
    names = {(entry.name, entry.workers, entry.teams) for entry in entries}
    static = "transformers-static" + "-compiled" * (compiled or device == "cuda")
    others = {("transformers", 1, 1), ("transformers-batch", 4, 1), (static, 1, 1), (static, 4, 1)}
    ours = {("hogwild", workers, teams) for workers in (1, 4) for teams in (1, 8)}
    if compiled:
        ours |= {("hogwild-compiled", workers, teams) for _, workers, teams in ours}
    assert names == others | ours


def test_a_lone_worker_and_plain_transformers_compute_the_same(shared: SharedCacheModel) -> None:
    """All caches hold the same random numbers; each row of a batch is the lone row."""
    entries = [
        Entry("hogwild", 1, 40),
        Entry("transformers", 1, 40),
        Entry("transformers-batch", 3, 40),
        Entry("transformers-static", 2, 40),
    ]
    logits = []
    for entry in entries:
        contender = make_contender(shared, entry, 1)
        with attention_of(shared.model, entry):
            logits.append(contender.run())
        contender.close()
    expected = logits[0][:1]
    for got, entry in zip(logits, entries, strict=True):
        assert got.shape == (entry.workers, shared.vocab_size)
        assert (got - expected).abs().max() < 1e-4
    assert shared.pool.used_pages == 0


def test_a_row(shared: SharedCacheModel) -> None:
    """The floor is weights and cache over the bandwidth; teams have contexts of their own."""
    entries = [Entry("hogwild", 2, 100, teams=3), Entry("transformers-static", 2, 100)]
    ticks: list[None] = []
    ours, static = measure(shared, entries, 2, 1e9, lambda: ticks.append(None))
    assert isinstance(ours, Measurement)
    assert isinstance(static, Measurement)
    assert len(ticks) == 4
    assert ours.kv_bytes == 3 * (128 + 2 * 32) * TOKEN
    assert static.kv_bytes == 2 * 128 * TOKEN
    for row in (ours, static):
        weights = sum(weight.nbytes for weight in shared.model.parameters())
        assert row.floor_ms == pytest.approx(1e3 * (weights + row.kv_bytes) / 1e9)
        assert row.bandwidth_share == pytest.approx(row.floor_ms / row.ms_per_pass)
        rate = 1e3 * row.teams * row.workers / row.ms_per_pass
        assert row.tokens_per_second == pytest.approx(rate)
        assert (row.dtype, row.cache_dtype, row.recordings) == ("float32", "float32", 0)
    assert shared.pool.used_pages == 0


def test_who_finds_no_room_is_left_out(shared: SharedCacheModel) -> None:
    """With the reason; the others are timed, and memory is given back."""
    small = SharedCacheModel.from_pretrained(
        shared.model, cache_bytes=20 * 32 * TOKEN, self_check=False
    )
    entries = [Entry("hogwild", 1, 10_000), Entry("hogwild", 1, 50), Entry("hogwild", 1, 2**21)]
    full, far, row = sorted(
        measure(small, entries, 1, 1e9, lambda: None),
        key=lambda line: isinstance(line, Measurement),
    )
    assert isinstance(full, LeftOut)
    assert isinstance(far, LeftOut)
    assert isinstance(row, Measurement)
    assert full.entry == entries[0]
    assert "pages" in full.reason
    assert "1,048,576" in far.reason
    assert row.context == 50
    assert small.pool.used_pages == 0


def test_another_fault_is_raised(shared: SharedCacheModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(bench, "make_contender", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        list(measure(shared, [Entry("hogwild", 1, 5)], 1, 1e9, lambda: None))


def test_a_cache_of_eight_bits(shared: SharedCacheModel) -> None:
    """Ours takes a quarter of float32; plain transformers keeps what it has."""
    small = SharedCacheModel.from_pretrained(shared.model, cache_dtype="fp8")
    ours, plain = measure(
        small, [Entry("hogwild", 1, 96), Entry("transformers", 1, 96)], 1, 1e9, lambda: None
    )
    assert isinstance(ours, Measurement)
    assert isinstance(plain, Measurement)
    assert ours.kv_bytes == 128 * TOKEN // 4
    assert ours.cache_dtype == "float8_e4m3fn"
    assert plain.cache_dtype == ours.dtype == "float32"


def test_attention_alone(shared: SharedCacheModel) -> None:
    """Every key and value counts once, those of this pass too; nothing is left behind."""
    row = attention_alone(shared, 3, 200, 1e9)
    assert row.engine == "attention"
    assert row.kv_bytes == 203 * TOKEN
    assert row.floor_ms == pytest.approx(1e3 * 203 * TOKEN / 1e9)
    assert shared.pool.used_pages == 0


def test_attention_alone_counts_what_a_window_holds(shared: SharedCacheModel) -> None:
    windowed = SharedCacheModel.from_pretrained(shared.model, self_check=False)
    windowed.layers = tuple(
        dataclasses.replace(layer, window=50 if layer.index else None) for layer in windowed.layers
    )
    assert attention_alone(windowed, 2, 100, 1e9).kv_bytes == (102 + 5 * 50) * TOKEN // 6


def test_small_things(shared: SharedCacheModel) -> None:
    """A cache is sized on a card only; a copy takes time; first passes leave nothing."""
    assert cache_bytes_for(shared.model, [[Entry("hogwild", 1, 5)]], 9) is None
    assert 1e8 < copy_bandwidth(CPU) < 1e13
    seconds, recorded = first_passes(shared, 2)
    assert 0 < seconds < 30
    assert recorded == 0
    assert shared.pool.used_pages == 0


def test_recordings_are_counted_and_warm_up_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first pass is launched, the second recorded; what follows is replayed, while timed."""
    pytest.importorskip("triton")
    from hogwild_agents.engine.attention.interface import cuda_graphs as graphs

    replayed: list[None] = []

    def record(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        result = run().clone()

        def replay() -> None:
            replayed.append(None)
            result.copy_(run())

        return result, replay

    family = next(family for family in ACCEPTED if family.name == "llama-mqa")
    model = SharedCacheModel.from_pretrained(build(family), backend="triton", self_check=False)
    monkeypatch.setattr(graphs, "record_graph", record)
    monkeypatch.setattr(model, "_graphs", graphs.CudaGraphRunner(model.pool, model._call))
    contender = make_contender(model, Entry("hogwild", 1, 40), 2)
    assert contender.recordings() == 1
    assert len(replayed) == 3
    contender.close()
    assert first_passes(model, 1)[1] == 1
    (row,) = measure(model, [Entry("hogwild", 1, 40)], 2, 1e9, lambda: None)
    assert isinstance(row, Measurement)
    assert row.recordings == 0


KERNELS = {
    "attend": "attend",
    "write": "write",
    "merge": "merge",
    "ampere_bf16_s16816gemm_bf16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn": "matrix products",
    "nvjet_tst_64x8_64x16_4x1_v_bz_TNT": "matrix products",
    "void gemvx::kernel<int, int, __nv_bfloat16>": "matrix products",
    "void cublasLt::splitKreduce_kernel<32, 16, int>": "matrix products",
    "triton_tem_fused_mm_3": "matrix products",
    "triton_red_fused__scaled_dot_product_flash_attention_mm_1": "other",
    "void pytorch_flash::flash_fwd_splitkv_kernel<x>": "attention",
    "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(x)": "attention",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop": "attention",
    "void at::native::vectorized_elementwise_kernel<4, x>": "other",
    "Memcpy DtoH (Device -> Pageable)": "other",
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_which_part_a_kernel_belongs_to(kernel: str) -> None:
    assert part_of(kernel) == KERNELS[kernel]


def test_what_a_card_ran_is_summed_up() -> None:
    """Kernels by part, per pass; the host has the time in which none ran."""

    def event(name: str, start: float, end: float, kind: str = "CUDA", note: bool = False) -> Any:
        time_range = SimpleNamespace(start=start, end=end)
        device = SimpleNamespace(name=kind)
        return SimpleNamespace(
            name=name, time_range=time_range, device_type=device, is_user_annotation=note
        )

    events = [
        event("attend", 0, 400),
        event("nvjet_x", 300, 1000),
        event("attend", 2000, 2600),
        event("pass", 0, 3000, note=True),
        event("cudaGraphLaunch", 0, 50, "CPU"),
    ]
    spans = list(kernels_of(events))
    assert covered(spans) == 1600
    profile = summed_up(Entry("hogwild", 2, 64), spans, 1.5, 2)
    assert profile.parts == pytest.approx({"attend": 0.5, "matrix products": 0.35, HOST: 0.7})
    assert profile.longest[0] == ("attend", 1.0, pytest.approx(0.5))
    assert summed_up(Entry("hogwild", 2, 64), [], 1.5, 2).parts == {}


def test_a_profile_on_a_cpu(shared: SharedCacheModel) -> None:
    """Its parts come to the time of a pass, and the attention function is as before."""
    for entry in (Entry("hogwild", 2, 200), Entry("transformers", 1, 200)):
        profile = profile_entry(shared, entry, 10.0)
        assert set(profile.parts) == {"attention", "matrix products", "other", HOST}
        assert min(profile.parts.values()) >= 0
        assert sum(profile.parts.values()) == pytest.approx(10.0, rel=0.01)
        assert profile.parts["attention"] > 0
        assert profile.parts["matrix products"] > 0
    assert AttentionInterface()[NAME] is shared_cache_attention
    assert shared.pool.used_pages == 0


def row(scene: str, engine: str, workers: int, context: int, **more: Any) -> dict[str, Any]:
    """A line as `measuring.py` writes it."""
    line = {
        "kind": "row",
        "scene": scene,
        "engine": engine,
        "teams": 1,
        "workers": workers,
        "context": context,
        "ms_per_pass": 10.0,
        "floor_ms": 6.0,
        "bandwidth_share": 0.6,
        "tokens_per_second": 100.0 * workers,
        "kv_bytes": 2**30,
        "recordings": 0,
    }
    return line | more


FOUND = [
    row("short", "hogwild", 1, 1024),
    row("compiled", "hogwild-compiled", 1, 1024, bandwidth_share=0.74),
    row("long", "hogwild", 1, 16_384),
    row("long", "hogwild", 4, 16_384, tokens_per_second=380.0),
    row("longest", "hogwild", 4, 32_768, ms_per_pass=14.0),
    row("longest", "hogwild", 4, 1024),
    row("static", "hogwild", 4, 16_384, kv_bytes=2**28),
    row("static", "transformers-static-compiled", 4, 16_384, tokens_per_second=250.0),
    row("teams", "hogwild", 2, 2048, teams=32, tokens_per_second=2900.0),
    row("teams", "hogwild", 2, 2048),
    {"kind": "startup", "seconds": 12.5, "loading": 3.0, "loaded": 9.0, "self_check": 8.0}
    | {"first_passes": 3.5, "recordings": 1},
    {"kind": "note", "text": "attention left out"},
    {"kind": "profile", "engine": "hogwild", "teams": 1, "workers": 1, "context": 1024}
    | {"parts": {"attend": 1.25, HOST: 0.5}, "longest": []},
]


def test_bars_are_computed_from_rows_of_one_scene() -> None:
    bars = bars_of(FOUND, REAL)
    values = [0.6, 0.74, 3.8, 1.4, None, 1.6, 0.25, 14.5, 12.5]
    assert [bar.value for bar in bars] == [v if v is None else pytest.approx(v) for v in values]
    met = [True, False, True, True, None, True, True, False, True]
    assert [bar.met for bar in bars] == met
    assert {bar.met for bar in bars_of([], REAL)} == {None}
    assert {bar.met for bar in bars_of(FOUND, TINY)[:-1]} == {None}


def test_the_report_ends_with_the_bars() -> None:
    text = report(FOUND, REAL, ["some card", "some versions"], "passed; 3 passed")
    assert text.endswith("tests: passed; 3 passed")
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("what "))
    assert "1.400 x" not in text
    verdicts = [line.split("  ")[-1].strip() for line in lines[first + 2 : first + 11]]
    assert verdicts == ["yes", "NO", "yes", "yes", "not measured", "yes", "yes", "NO", "yes"]
    for words in ("some card", "attention left out", "1.250", "12.5 s", "74%", "loading 3.0 s"):
        assert words in text
    assert report([], REAL, [], "failed").endswith("tests: failed")


def test_a_table() -> None:
    text = table([("name", "ms"), ("a", "1.5"), ("long", "10")], right=[1])
    assert text.splitlines() == ["name   ms", "---------", "a     1.5", "long   10"]
    assert Bar("x", 2, True, "{:.1f}", 2.0).cells() == ("x", ">= 2.0", "2.0", "yes")
