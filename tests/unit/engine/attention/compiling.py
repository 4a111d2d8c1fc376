"""Compiles the kernels as they are launched on real cards, and prints their properties as JSON.

`test_kernels.py` runs this in a separate process, because in the tests' own process kernels are
interpreted. It needs no card. Usage: python compiling.py FOLDER; machine code is written to FOLDER.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hogwild_agents.engine.attention import kernels
from hogwild_agents.engine.attention.tiles import BLOCK_N
from hogwild_agents.engine.attention.triton import BLOCK_S, BLOCK_T, _block_size, _launch_options

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

Signature = dict[str, str]
Constants = dict[str, Any]
Compilation = tuple[Any, Signature, Constants, dict[str, int]]


def attend(
    rows: int,
    dim: int,
    dtype: str = "bf16",
    *,
    value_dim: int | None = None,
    window: int | None = None,
    softcap: bool = False,
    rotate: bool = True,
    cache_dtype: str | None = None,
) -> Compilation:
    """As `TritonAttention` launches it."""
    value_dim, block_d, exact = value_dim or dim, _block_size(dim), dtype == "fp32"
    signature = {
        "q": f"*{dtype}",
        **dict.fromkeys(("k_cache", "v_cache"), f"*{cache_dtype or dtype}"),
        **dict.fromkeys(("partial_acc", "partial_ml", "cos_sin"), "*fp32"),
        **dict.fromkeys(("splits", "queries", "placements", "partner"), "*i64"),
        **dict.fromkeys(("stride_qh", "stride_qt", "num_slots", "num_heads"), "i32"),
        **dict.fromkeys(("scaling", "softcap"), "fp32"),
    }
    constants = {
        "GROUP": 4,
        "KEY_DIM": dim,
        "VALUE_DIM": value_dim,
        "WINDOW": window or 0,
        "SOFTCAP": softcap,
        "ROTATE": rotate,
        "EXACT": exact,
        "BLOCK_M": rows,
        "BLOCK_N": BLOCK_N,
        "BLOCK_D": block_d,
        "BLOCK_DV": _block_size(value_dim),
    }
    return kernels.attend, signature, constants, _launch_options(rows, block_d, exact)


def write_kv(dtype: str, dim: int, value_dim: int) -> Compilation:
    """As `TritonAttention` launches it."""
    signature = {
        **dict.fromkeys(("k", "v", "k_cache", "v_cache"), f"*{dtype}"),
        **dict.fromkeys(("stride_kh", "stride_kt", "stride_vh", "stride_vt", "num_slots"), "i32"),
        "slot_mapping": "*i64",
    }
    block_d = max(_block_size(dim), _block_size(value_dim))
    constants = {"KEY_DIM": dim, "VALUE_DIM": value_dim, "BLOCK_D": block_d}
    return kernels.write_kv, signature, constants, {}


def merge_splits(dtype: str, value_dim: int, *, sinks: bool) -> Compilation:
    """As `TritonAttention` launches it; without sinks it passes some other tensor for them."""
    signature = {
        **dict.fromkeys(("partial_acc", "partial_ml"), "*fp32"),
        **dict.fromkeys(("merges", "queries"), "*i64"),
        "out": f"*{dtype}",
        "sinks": f"*{dtype}" if sinks else "*fp32",
        "num_heads": "i32",
    }
    constants = {
        "VALUE_DIM": value_dim,
        "SINKS": sinks,
        "BLOCK_S": BLOCK_S,
        "BLOCK_DV": _block_size(value_dim),
    }
    return kernels.merge_splits, signature, constants, {}


def commit(dtype: str, dim: int) -> Compilation:
    """As `TritonPool` launches it."""
    signature = {
        **dict.fromkeys(("layers", "partners", "source_slots", "target_slots"), "*i64"),
        "cos_sin": "*fp32",
        "num_tokens": "i32",
    }
    cache_dtypes = {
        "bf16": tl.bfloat16,
        "fp16": tl.float16,
        "fp32": tl.float32,
        "fp8e4nv": tl.float8e4nv,
    }
    constants = {
        "CACHE_DTYPE": cache_dtypes[dtype],
        "BLOCK_D": _block_size(dim),
        "BLOCK_T": BLOCK_T,
    }
    return kernels.commit, signature, constants, {}


VARIANTS: dict[str, tuple[int, Compilation]] = {
    "attend decode 128": (90, attend(16, 128)),
    "attend decode 128 fp16 window softcap": (
        90,
        attend(16, 128, "fp16", window=4096, softcap=True),
    ),
    "attend decode 64": (90, attend(16, 64)),
    "attend decode 128 fp8 cache": (90, attend(16, 128, cache_dtype="fp8e4nv")),
    "attend decode 80": (90, attend(16, 80)),
    "attend decode 32 rows 128": (90, attend(32, 128)),
    "attend decode 256": (90, attend(16, 256)),
    "attend decode latent": (90, attend(16, 192, value_dim=128)),
    "attend prompt 128": (90, attend(128, 128)),
    "attend prompt 64 window": (90, attend(128, 64, window=128)),
    "attend prompt 256": (90, attend(32, 256, softcap=True, window=4096)),
    "attend prompt latent": (90, attend(64, 192, value_dim=128)),
    "attend fp32 decode 128": (90, attend(16, 128, "fp32")),
    "attend fp32 prompt 64 nope": (90, attend(128, 64, "fp32", rotate=False)),
    "attend sm_80 decode 128": (80, attend(16, 128)),
    "attend sm_80 prompt 128": (80, attend(128, 128)),
    "attend sm_89 prompt 64 rows 128": (89, attend(64, 128)),
    "attend sm_89 prompt 256": (89, attend(32, 256)),
    "attend sm_89 prompt latent": (89, attend(64, 192, value_dim=128)),
    "attend sm_89 fp32 decode 128": (89, attend(16, 128, "fp32")),
    "write_kv": (90, write_kv("bf16", 128, 128)),
    "write_kv sm_80 fp16 latent": (80, write_kv("fp16", 192, 128)),
    "write_kv fp8": (90, write_kv("fp8e4nv", 128, 128)),
    "merge_splits": (90, merge_splits("bf16", 128, sinks=False)),
    "merge_splits sinks": (90, merge_splits("bf16", 64, sinks=True)),
    "commit": (90, commit("bf16", 128)),
    "commit fp32": (90, commit("fp32", 256)),
    "commit fp8": (90, commit("fp8e4nv", 128)),
    "commit sm_80 fp16": (80, commit("fp16", 64)),
}
"""By name: the compute capability, and what is compiled for it."""


def compiled(target: int, compilation: Compilation, file: Path) -> dict[str, Any]:
    """Properties of the machine code of a kernel."""
    kernel, signature, constants, options = compilation
    names = kernel.arg_names
    assert {*signature, *constants} == set(names), "the launch and the kernel disagree"
    aligned = [name for name in names if signature.get(name, "fp32") != "fp32"]
    source = ASTSource(
        fn=kernel,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    file.write_bytes(made.asm["cubin"])
    usage = dumped("-res-usage", file)
    code = dumped("--dump-sass", file)
    resources = {
        name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)
    }
    loads = re.findall(r"\bLDGSTS[.\w]*", code)
    wide = sum(load.endswith(".128") for load in loads)
    return {
        "target": target,
        "shared": made.metadata.shared,
        "threads": 32 * made.metadata.num_warps,
        "stages": made.metadata.num_stages,
        "registers": resources["REG"],
        "stack": resources["STACK"] + resources["LOCAL"],
        "tensor_cores": len(re.findall(r"\bHG?MMA\b", code)),
        "wide_loads": wide,
        "narrow_loads": len(loads) - wide,
    }


def dumped(option: str, file: Path) -> str:
    """The output of NVIDIA's `cuobjdump` for machine code."""
    return subprocess.run(
        [CUOBJDUMP, option, file], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {
        name: compiled(target, compilation, folder / f"{number}.cubin")
        for number, (name, (target, compilation)) in enumerate(VARIANTS.items())
    }
    print(json.dumps(results))
