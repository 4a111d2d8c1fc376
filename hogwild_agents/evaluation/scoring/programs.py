"""Scores programs: runs the last code block of a text against the problem's tests.

Each test runs in a separate process: `python -I` in an empty folder with an empty environment, with
limits on time, memory, files and output, and without network. On Linux, if the system allows it,
the process also gets separate namespaces for users, processes and the network (`unshare`). This
protects against accidents and is not a security boundary (see `driver`). Score the programs of a
model that you do not trust on a machine that you can throw away.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.cases import Case, read_cases
from hogwild_agents.team.answers import answer_format

SECONDS = 6.0
"""Wall time of one test, as in LiveCodeBench's own harness."""

MEMORY = 4 * 2**30
"""Bytes of address space, as in LiveCodeBench's own harness."""

_extract = answer_format("code").extract


def code(problem: Problem, text: str) -> float:
    """1.0 if the last program in a text passes all tests.

    The problem's `extra` has `tests`, a list of fields in LiveCodeBench's format (see `cases`). It
    may have `function` (the function that functional tests call), `seconds` and `memory` (limits of
    one test).
    """
    program = _extract(text) or _extract(f"```python\n{text}\n```")
    if program is None:
        return 0.0
    cases = [case for field in problem.extra["tests"] for case in read_cases(field)]
    seconds = float(problem.extra.get("seconds", SECONDS))
    memory = int(problem.extra.get("memory", MEMORY))
    function = problem.extra.get("function", "")
    passed = (
        passes(program, case, function=function, seconds=seconds, memory=memory) for case in cases
    )
    return float(bool(cases) and all(passed))


def passes(program: str, case: Case, *, function: str, seconds: float, memory: int) -> bool:
    """Whether a program passes a test."""
    with tempfile.TemporaryDirectory(prefix="hogwild-", ignore_cleanup_errors=True) as folder:
        files = Path(folder)
        (files / "answer.py").write_text(program, encoding="utf-8", errors="replace")
        (files / "input").write_text(case.input, encoding="utf-8", errors="replace", newline="")
        (files / "work").mkdir()
        driver = str(Path(__file__).with_name("driver.py"))
        command = [
            *(isolation() or ()),
            *(sys.executable, "-I", "-X", "utf8", driver),
            *(str(files / "answer.py"), str(seconds), str(memory)),
            *([function] if case.calls_function else []),
        ]
        with (files / "input").open("rb") as stdin, (files / "output").open("wb") as stdout:
            status = _run(command, stdin, stdout, files / "work", seconds)
        if status != 0:
            return False
        output = (files / "output").read_text(encoding="utf-8", errors="replace")
    matches = _same_value if case.calls_function else _same_lines
    return matches(output, case.expected)


def _run(command: list[str], stdin: Any, stdout: Any, folder: Path, seconds: float) -> int | None:
    """The exit status of a command; None if it ran out of time."""
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also the processes that it left behind
        process.wait()


@functools.cache
def isolation() -> tuple[str, ...] | None:
    """A prefix that runs a command in separate namespaces; None if the system does not allow it.

    The process namespace ends with its first process, and with it all processes started in it.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    command = (unshare, "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    try:
        trial = subprocess.run(
            [*command, sys.executable, "-I", "-S", "-c", ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return command if trial.returncode == 0 else None


# Outputs are compared as in LiveCodeBench (`lcb_runner/evaluation/testing_util.py`).


def _same_value(output: str, expected: str) -> bool:
    """Whether two JSON values are equal."""
    try:
        return bool(json.loads(output) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _same_lines(output: str, expected: str) -> bool:
    """Whether all lines are equal, apart from outer spaces and the notation of numbers."""
    lines, expected_lines = (
        [line.strip() for line in text.strip().split("\n")] for text in (output, expected)
    )
    return len(lines) == len(expected_lines) and all(map(_same_line, lines, expected_lines))


def _same_line(line: str, expected: str) -> bool:
    if line == expected:
        return True
    try:
        numbers = [[Decimal(word) for word in text.split()] for text in (line, expected)]
        return numbers[0] == numbers[1]
    except InvalidOperation:
        return False
