"""Checks and times the GPU engine in one run of less than eight minutes.

    python -m tests.gpu [--out FOLDER] [--tiny]

First the tests of this folder, then every row of the table of bars, each part in a process of its
own with a time of its own: whatever fails, the others' figures are printed, the bars last. The log,
all figures (`figures.jsonl`) and the report go to FOLDER. `--tiny` rehearses on a CPU.
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
"""For everything; the report takes a few more."""

MOST = {"tests": 170.0, "plain": 150.0, "compiled": 250.0}
"""Seconds that a part may take, if the parts before it leave them."""

LEAST = {"tests": 0.0, "plain": 90.0, "compiled": 110.0}
"""Seconds that are kept for a part while those before it run."""

PACKAGES = ("torch", "transformers", "triton")

GRACE = 15.0
"""Before its end a measuring part begins nothing new for so long."""


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
        for part in MOST:
            later = list(MOST)[list(MOST).index(part) + 1 :]
            left = end - time.monotonic() - sum(LEAST[other] for other in later)
            seconds = max(1.0, min(MOST[part], left))
            command = command_of(part, figures, seconds - GRACE, options.tiny)
            print(f"{part}: at most {seconds:.0f} s ...", flush=True)
            outcomes[part] = run(command, seconds, out / f"{part}.log")
        text, met = summary(figures, outcomes, out, options.tiny)
    (out / "report.txt").write_text(text + "\n")
    print("\n" + text)
    return 0 if met and outcomes["tests"] == "passed" else 1


def environment_of(tiny: bool, scratch: Path) -> dict[str, str]:
    """What the parts run with: nothing from earlier runs, no downloads."""
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
    """How a part is started."""
    if part == "tests":
        workers = ["-n", "8"] if find_spec("xdist") and not tiny else []
        return [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", "-ra", *workers]
    measuring = [sys.executable, "-m", "tests.gpu.measuring", part, "--out", str(figures)]
    return [*measuring, "--seconds", f"{seconds:.0f}", *(["--tiny"] if tiny else [])]


def run(command: Sequence[str], seconds: float, log: Path) -> str:
    """Runs a part; `passed`, or what became of it."""
    with log.open("w") as lines:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=lines, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it and what it started
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
    found = [json.loads(line) for line in lines if line.endswith("}")]
    found += [
        {"kind": "note", "text": f"part {part}: {outcome}, see {out / part}.log"}
        for part, outcome in outcomes.items()
        if outcome != "passed"
    ]
    log = (out / "tests.log").read_text().splitlines()
    counted = [line for line in log if re.search(r"\d (passed|failed|skipped|error)", line)]
    broken = [line for line in log if line.startswith(("FAILED", "ERROR"))]
    tests = "; ".join([outcomes["tests"], *counted[-1:], *(line[:160] for line in broken[:12])])
    text = report(found, sizes, head_of(found, sizes.shape), tests)
    return text, all(bar.met for bar in bars_of(found, sizes))


def head_of(found: Sequence[dict[str, object]], shape: str) -> list[str]:
    """The machine, versions, the date and the command."""
    machine = next((line for line in found if line["kind"] == "machine"), {})
    name = machine.get("name", "nothing was measured")
    copies = float(str(machine.get("copies", 0))) / 1e9
    versions = ", ".join(f"{package} {version_of(package)}" for package in PACKAGES)
    return [
        f"{name}, copies {copies:.0f} GB/s; {shape}, random weights; {time.strftime('%Y-%m-%d')}",
        f"python {platform.python_version()}, {versions}",
        f"command: python -m tests.gpu {' '.join(sys.argv[1:])}".rstrip(),
    ]


def version_of(package: str) -> str:
    """Of a package; `none` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    sys.exit(main())
