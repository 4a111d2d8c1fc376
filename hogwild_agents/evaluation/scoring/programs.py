"""Marks for programs: the last code block of a text is run against a problem's tests.

Each test runs in a process of its own: `python -I` in an empty folder with an empty environment,
with limits to its time, memory, files and output, without network and, on Linux where the system
lets us, in namespaces of its own for users, processes and the network (`unshare`). What `driver`
says holds: this guards against accidents and is no security boundary. Mark answers of a model that
you have reason to fear in a machine that you can throw away.
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
"""Wall time for one test, as in LiveCodeBench's own harness."""

MEMORY = 4 * 2**30
"""Bytes of address space, as there."""

_extract = answer_format("code").extract


def code(problem: Problem, text: str) -> float:
    """1.0 if the last program in a text passes all tests.

    The problem's `extra` has `tests`, a list of fields in LiveCodeBench's form (see `cases`), and
    may have `function` (the name of the function that functional tests call), `seconds` and
    `memory` (limits of one test).
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
        (files / "input").write_text(case.given, encoding="utf-8", errors="replace", newline="")
        (files / "work").mkdir()
        driver = str(Path(__file__).with_name("driver.py"))
        command = [
            *(isolation() or ()),
            *(sys.executable, "-I", "-X", "utf8", driver),
            *(str(files / "answer.py"), str(seconds), str(memory)),
            *([function] if case.function else []),
        ]
        with (files / "input").open("rb") as given, (files / "output").open("wb") as output:
            ended = _run(command, given, output, files / "work", seconds)
        if ended != 0:
            return False
        printed = (files / "output").read_text(encoding="utf-8", errors="replace")
    return _returned(printed, case.expected) if case.function else _printed(printed, case.expected)


def _run(command: list[str], given: Any, output: Any, folder: Path, seconds: float) -> int | None:
    """The status that a command ended with; None if it had to be ended."""
    process = subprocess.Popen(
        command,
        stdin=given,
        stdout=output,
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
            os.killpg(process.pid, signal.SIGKILL)  # also what it left behind
        process.wait()


@functools.cache
def isolation() -> tuple[str, ...] | None:
    """What to put before a command so that it gets namespaces of its own; None if it cannot.

    The process namespace ends with its first process, and with it all that was started in it.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    command = (unshare, "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    try:
        tried = subprocess.run(
            [*command, sys.executable, "-I", "-S", "-c", ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return command if tried.returncode == 0 else None


# How outputs are compared: as in LiveCodeBench (`lcb_runner/evaluation/testing_util.py`).


def _returned(printed: str, expected: str) -> bool:
    """Whether a function returned what it should, as JSON."""
    try:
        return bool(json.loads(printed) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _printed(printed: str, expected: str) -> bool:
    """Whether the lines are the same, but for spaces at their ends and ways to write a number."""
    given, right = (
        [line.strip() for line in text.strip().split("\n")] for text in (printed, expected)
    )
    return len(given) == len(right) and all(map(_same_line, given, right))


def _same_line(given: str, right: str) -> bool:
    if given == right:
        return True
    try:
        numbers = [[Decimal(word) for word in line.split()] for line in (given, right)]
        return numbers[0] == numbers[1]
    except InvalidOperation:
        return False
