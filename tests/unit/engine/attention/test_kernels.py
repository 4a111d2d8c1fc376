"""The kernels compile for real cards, and use the hardware as they should.

The interpreter proves neither. `compiling.py` compiles them with the options of a launch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from hogwild_agents.engine.attention.tiles import BLOCK_N
from tests.unit.engine.attention.compiling import CUOBJDUMP, VARIANTS

pytestmark = pytest.mark.skipif(not CUOBJDUMP.exists(), reason="Triton without NVIDIA's tools")

KIB = 1024
SHARED = {80: 163 * KIB, 89: 99 * KIB, 90: 227 * KIB}
"""The most shared memory of a multiprocessor that one program may have."""

PROCESSOR_SHARED, PROCESSOR_REGISTERS = 228 * KIB, 65_536
"""What a multiprocessor of sm_90 has."""

RESERVED = KIB
"""Shared memory that a program takes on top of its own."""

STACK = {"attend decode 64": 16, "attend fp32 prompt 64 nope": 1536}
"""Bytes of stack that these may use. The first keeps three numbers there while its loop runs, so
that it needs only 72 registers. Float32 tiles are for comparison, and no tensor core helps them."""

ATTEND = [name for name in VARIANTS if name.startswith("attend")]
HALF = [name for name in ATTEND if "fp32" not in name]
DECODE = [name for name in HALF if "decode" in name and "sm_8" not in name and "32" not in name]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """The properties of every variant, compiled in one process that does not interpret kernels."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.unit.engine.attention.compiling"),
            str(tmp_path_factory.mktemp("cubins")),
        ],
        cwd=Path(__file__).parents[4],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    assert list(results) == list(VARIANTS)
    return results


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_spills_and_everything_fits(compiled: dict[str, dict[str, int]], name: str) -> None:
    """A program's values fit into registers, and its pipeline into shared memory."""
    made = compiled[name]
    assert made["stack"] <= STACK.get(name, 0)
    assert made["shared"] <= SHARED[made["target"]]


@pytest.mark.parametrize("name", HALF)
def test_products_run_on_tensor_cores(compiled: dict[str, dict[str, int]], name: str) -> None:
    assert compiled[name]["tensor_cores"] > 0


@pytest.mark.parametrize("name", [name for name in ATTEND if "fp32" in name])
def test_float32_stays_exact(compiled: dict[str, dict[str, int]], name: str) -> None:
    """Tensor cores would round it to 10 bits."""
    assert compiled[name]["tensor_cores"] == 0


@pytest.mark.parametrize("name", [name for name in ATTEND if "fp8" not in name])
def test_keys_and_values_are_loaded_asynchronously(
    compiled: dict[str, dict[str, int]], name: str
) -> None:
    """16 bytes at a time, both of them, for every stage of the pipeline."""
    made = compiled[name]
    _, signature, constants, _ = VARIANTS[name][1]
    numbers = BLOCK_N * (constants["BLOCK_D"] + constants["BLOCK_DV"])
    size = 4 if signature["k_cache"] == "*fp32" else 2
    assert made["narrow_loads"] == 0
    assert made["wide_loads"] * 16 * made["threads"] >= numbers * size * made["stages"]


@pytest.mark.parametrize("name", DECODE)
def test_three_programs_of_a_decode_pass_share_a_processor(
    compiled: dict[str, dict[str, int]], name: str
) -> None:
    """As `PROGRAMS_PER_PROCESSOR` says, for keys of any size."""
    made = compiled[name]
    assert made["shared"] <= 76 * KIB
    assert 3 * (made["shared"] + RESERVED) <= PROCESSOR_SHARED
    assert 3 * made["registers"] * made["threads"] <= PROCESSOR_REGISTERS
