"""Checks and times the GPU engine in one run of less than eight minutes.

    python -m tests.gpu [--out FOLDER] [--tiny]

First the tests of this folder run, then every row of the table of bars is measured. Each part is a
process with its own time limit, so whatever fails, the figures of the others are printed, the bars
last. Logs, figures (`figures.jsonl`) and the report go to FOLDER. `--tiny` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

SECONDS = 460.0
"""For all parts; the report takes a few more."""

MAX_SECONDS = {"tests": 170.0, "plain": 150.0, "compiled": 250.0}
"""The most seconds that a part may take, if the parts before it leave them."""

RESERVED_SECONDS = {"tests": 0.0, "plain": 90.0, "compiled": 110.0}
"""Seconds that are reserved for a part while those before it run."""

PACKAGES = ("torch", "transformers", "triton")

GRACE = 15.0
"""A measuring part starts nothing new in its last seconds, this many."""


def main() -> int:
    """Runs all parts; 0 if the tests passed and every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    figures = out / "figures.jsonl"
    figures.unlink(missing_ok=True)
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= environment_of(options.tiny, Path(scratch))
        outcomes = {}
        for part in MAX_SECONDS:
            later = list(MAX_SECONDS)[list(MAX_SECONDS).index(part) + 1 :]
            left = end - time.monotonic() - sum(RESERVED_SECONDS[other] for other in later)
            seconds = max(1.0, min(MAX_SECONDS[part], left))
            command = command_of(part, figures, seconds - GRACE, options.tiny)
            print(f"{part}: at most {seconds:.0f} s ...", flush=True)
            outcomes[part] = run(command, seconds, out / f"{part}.log")
        text, met = summary(figures, outcomes, out, options.tiny)
    (out / "report.txt").write_text(text + "\n")
    print("\n" + text)
    return 0 if met and outcomes["tests"] == "passed" else 1


def environment_of(tiny: bool, scratch: Path) -> dict[str, str]:
    """The environment of the parts: no caches of earlier runs, no downloads."""
    paths = [str(ROOT)]
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRITON_CACHE_DIR": str(scratch / "triton"),
    }
    return environment | ({"TRITON_INTERPRET": "1"} if tiny else {})


def command_of(part: str, figures: Path, seconds: float, tiny: bool) -> list[str]:
    """The command that runs a part."""
    if part == "tests":
        workers = ["-n", "8"] if find_spec("xdist") and not tiny else []
        return [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", "-ra", *workers]
    measuring = [sys.executable, "-m", "tests.gpu.measuring", part, "--out", str(figures)]
    return [*measuring, "--seconds", f"{seconds:.0f}", *(["--tiny"] if tiny else [])]


def run(command: Sequence[str], seconds: float, log: Path) -> str:
    """Runs a part; returns `passed`, or how it ended."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=lines, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and its children
            process.wait()
            return f"stopped after {seconds:.0f} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return "passed" if status == 0 else f"ended with {status}"


def summary(figures: Path, outcomes: dict[str, str], out: Path, tiny: bool) -> tuple[str, bool]:
    """The report, and whether every bar was met."""
    from tests.gpu.bars import REAL, TINY, bars_of, report

    sizes = TINY if tiny else REAL
    lines = figures.read_text().splitlines() if figures.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    entries += [
        {"kind": "note", "text": f"part {part}: {outcome}, see {out / part}.log"}
        for part, outcome in outcomes.items()
        if outcome != "passed"
    ]
    log = (out / "tests.log").read_text().splitlines()
    totals = [line for line in log if re.search(r"\d (passed|failed|skipped|error)", line)]
    failures = [line for line in log if line.startswith(("FAILED", "ERROR"))]
    tests = "; ".join([outcomes["tests"], *totals[-1:], *(line[:160] for line in failures[:12])])
    text = report(entries, sizes, head_of(entries, sizes.shape), tests)
    return text, all(bar.met for bar in bars_of(entries, sizes))


def head_of(entries: Sequence[dict[str, object]], shape: str) -> list[str]:
    """The machine, versions, the date and the command."""
    machine = next((entry for entry in entries if entry["kind"] == "machine"), {})
    name = machine.get("name", "nothing was measured")
    copies = float(str(machine.get("copies", 0))) / 1e9
    versions = ", ".join(f"{package} {version_of(package)}" for package in PACKAGES)
    return [
        f"{name}, copies {copies:.0f} GB/s; {shape}, random weights; {time.strftime('%Y-%m-%d')}",
        f"python {platform.python_version()}, {versions}",
        f"command: python -m tests.gpu {' '.join(sys.argv[1:])}".rstrip(),
    ]


def version_of(package: str) -> str:
    """The version of a package; `none` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
