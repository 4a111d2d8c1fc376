"""Compiles the kernels as they are launched on real cards, and prints what came out as JSON.

Run by `test_kernels.py` in a process of its own: where the tests run, kernels are interpreted. It
needs no card. Usage: python compiling.py FOLDER, where the machine code may lie.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hogwild_agents.engine.attention import kernels
from hogwild_agents.engine.attention.tiles import STEP
from hogwild_agents.engine.attention.triton import MERGED, MOVED, _tuning, _width

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

Signature = dict[str, str]
Constants = dict[str, Any]
Compilation = tuple[Any, Signature, Constants, dict[str, int]]


def attend(
    rows: int,
    dim: int,
    kind: str = "bf16",
    *,
    value_dim: int | None = None,
    window: int | None = None,
    capped: bool = False,
    turning: bool = True,
    cache: str | None = None,
) -> Compilation:
    """As `TritonAttend` launches it."""
    values, width = value_dim or dim, _width(dim)
    signature = {
        "query": f"*{kind}",
        **dict.fromkeys(("keys", "values"), f"*{cache or kind}"),
        **dict.fromkeys(("sums", "peaks", "angles"), "*fp32"),
        **dict.fromkeys(("items", "queries", "turns", "partner"), "*i64"),
        **dict.fromkeys(("query_head", "query_token", "room", "heads"), "i32"),
        **dict.fromkeys(("scaling", "softcap"), "fp32"),
    }
    constants = {
        "GROUP": 4,
        "DIM": dim,
        "VALUE_DIM": values,
        "WINDOW": window or 0,
        "CAPPED": capped,
        "TURNING": turning,
        "EXACT": kind == "fp32",
        "ROWS": rows,
        "STEP": STEP,
        "WIDTH": width,
        "VALUE_WIDTH": _width(values),
    }
    return kernels.attend, signature, constants, _tuning(rows, width, kind == "fp32")


def write(kind: str, dim: int, value_dim: int) -> Compilation:
    """As `TritonAttend` launches it."""
    signature = {
        **dict.fromkeys(("key", "value", "keys", "values"), f"*{kind}"),
        **dict.fromkeys(("key_head", "key_token", "value_head", "value_token", "room"), "i32"),
        "slots": "*i64",
    }
    width = max(_width(dim), _width(value_dim))
    return kernels.write, signature, {"DIM": dim, "VALUE_DIM": value_dim, "WIDTH": width}, {}


def merge(kind: str, value_dim: int, *, sinks: bool) -> Compilation:
    """As `TritonAttend` launches it; without sinks it gives any tensor in their stead."""
    signature = {
        **dict.fromkeys(("sums", "peaks"), "*fp32"),
        **dict.fromkeys(("merges", "queries"), "*i64"),
        "out": f"*{kind}",
        "sinks": f"*{kind}" if sinks else "*fp32",
        "heads": "i32",
    }
    constants = {
        "VALUE_DIM": value_dim,
        "SINKS": sinks,
        "MANY": MERGED,
        "VALUE_WIDTH": _width(value_dim),
    }
    return kernels.merge, signature, constants, {}


def commit(kind: str, dim: int) -> Compilation:
    """As `TritonPool` launches it."""
    signature = {
        **dict.fromkeys(("layers", "partners", "source", "target"), "*i64"),
        "angles": "*fp32",
        "tokens": "i32",
    }
    types = {
        "bf16": kernels.tl.bfloat16,
        "fp16": kernels.tl.float16,
        "fp32": kernels.tl.float32,
        "fp8e4nv": kernels.tl.float8e4nv,
    }
    constants = {"KIND": types[kind], "WIDTH": _width(dim), "MANY": MOVED}
    return kernels.commit, signature, constants, {}


VARIANTS: dict[str, tuple[int, Compilation]] = {
    "attend decode 128": (90, attend(16, 128)),
    "attend decode 128 fp16 window softcap": (
        90,
        attend(16, 128, "fp16", window=4096, capped=True),
    ),
    "attend decode 64": (90, attend(16, 64)),
    "attend decode 128 fp8 cache": (90, attend(16, 128, cache="fp8e4nv")),
    "attend decode 80": (90, attend(16, 80)),
    "attend decode 32 rows 128": (90, attend(32, 128)),
    "attend decode 256": (90, attend(16, 256)),
    "attend decode latent": (90, attend(16, 192, value_dim=128)),
    "attend prompt 128": (90, attend(128, 128)),
    "attend prompt 64 window": (90, attend(128, 64, window=128)),
    "attend prompt 256": (90, attend(32, 256, capped=True, window=4096)),
    "attend prompt latent": (90, attend(64, 192, value_dim=128)),
    "attend fp32 decode 128": (90, attend(16, 128, "fp32")),
    "attend fp32 prompt 64 still": (90, attend(128, 64, "fp32", turning=False)),
    "attend sm_80 decode 128": (80, attend(16, 128)),
    "attend sm_80 prompt 128": (80, attend(128, 128)),
    "attend sm_89 prompt 64 rows 128": (89, attend(64, 128)),
    "attend sm_89 prompt 256": (89, attend(32, 256)),
    "attend sm_89 prompt latent": (89, attend(64, 192, value_dim=128)),
    "attend sm_89 fp32 decode 128": (89, attend(16, 128, "fp32")),
    "write": (90, write("bf16", 128, 128)),
    "write sm_80 fp16 latent": (80, write("fp16", 192, 128)),
    "write fp8": (90, write("fp8e4nv", 128, 128)),
    "merge": (90, merge("bf16", 128, sinks=False)),
    "merge sinks": (90, merge("bf16", 64, sinks=True)),
    "commit": (90, commit("bf16", 128)),
    "commit fp32": (90, commit("fp32", 256)),
    "commit fp8": (90, commit("fp8e4nv", 128)),
    "commit sm_80 fp16": (80, commit("fp16", 64)),
}
"""For which card, and what."""


def compiled(target: int, compilation: Compilation, file: Path) -> dict[str, Any]:
    """What the compiler made of a kernel."""
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
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    loads = re.findall(r"\bLDGSTS[.\w]*", code)
    wide = sum(load.endswith(".128") for load in loads)
    return {
        "target": target,
        "shared": made.metadata.shared,
        "threads": 32 * made.metadata.num_warps,
        "stages": made.metadata.num_stages,
        "registers": used["REG"],
        "stack": used["STACK"] + used["LOCAL"],
        "tensor_cores": len(re.findall(r"\bHG?MMA\b", code)),
        "wide_loads": wide,
        "narrow_loads": len(loads) - wide,
    }


def dumped(what: str, file: Path) -> str:
    """What the card's tools say of machine code."""
    return subprocess.run(
        [CUOBJDUMP, what, file], capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {
        name: compiled(target, compilation, folder / f"{number}.cubin")
        for number, (name, (target, compilation)) in enumerate(VARIANTS.items())
    }
    print(json.dumps(results))
