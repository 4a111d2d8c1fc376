"""Where the time of a pass goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hogwild_agents.bench.contenders import Case
from hogwild_agents.bench.profiling import (
    HOST,
    covered_time,
    kernels_of,
    part_of,
    profile_case,
    summarize,
)
from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.attention.interface import ATTN_IMPLEMENTATION, shared_cache_attention

KERNELS = {
    "attend": "attend",
    "write_kv": "write",
    "merge_splits": "merge",
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
def test_the_part_of_a_kernel(kernel: str) -> None:
    assert part_of(kernel) == KERNELS[kernel]


def test_a_profile_on_a_card() -> None:
    """Kernels by part, per pass; the host has the time in which none runs."""

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
    assert covered_time(spans) == 1600
    profile = summarize(Case("hogwild", 2, 64), spans, 1.5, 2)
    assert profile.parts == pytest.approx({"attend": 0.5, "matrix products": 0.35, HOST: 0.7})
    name, calls, ms = profile.longest[0]
    assert (name, calls) == ("attend", 1.0)
    assert ms == pytest.approx(0.5)
    assert summarize(Case("hogwild", 2, 64), [], 1.5, 2).parts == {}


def test_a_profile_on_a_cpu(shared: SharedCacheModel) -> None:
    """Its parts add up to the time of a pass, and the attention function is as before."""
    for case in (Case("hogwild", 2, 200), Case("transformers", 1, 200)):
        profile = profile_case(shared, case, 10.0)
        assert set(profile.parts) == {"attention", "matrix products", "other", HOST}
        assert min(profile.parts.values()) >= 0
        assert sum(profile.parts.values()) == pytest.approx(10.0, rel=0.01)
        assert profile.parts["attention"] > 0
        assert profile.parts["matrix products"] > 0
    assert ALL_ATTENTION_FUNCTIONS[ATTN_IMPLEMENTATION] is shared_cache_attention
    assert shared.pool.used_pages == 0
