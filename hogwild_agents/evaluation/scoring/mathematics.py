r"""Scores mathematics: finds the answer in a text, and asks a separate process if it is right.

The process (see `math_process`) is needed because sympy may compute without end, and the time
limits of math-verify are signals, which work in a main thread only. A process that exceeds its time
or memory ends; the answer then counts as wrong, and the next answer goes to a new process.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring.boxed import boxes
from hogwild_agents.evaluation.scoring.math_process import SECONDS

MAX_LENGTH = 2_000
"""Longer answers are wrong; in a text without a box, only so many characters at its end count."""


class MathProcess:
    """A process that compares mathematics; only one thread at a time may use it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("math_process.py")), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if self._read_line() != "ready":
            self.close()
            raise EvaluationError(
                "The process that scores mathematics did not start. To see why, run "
                f"`{sys.executable} -c 'import math_verify'`."
            )

    def is_right(self, **question: Any) -> bool | None:
        """Whether the answer is right; None if the question ended the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        line = self._read_line()
        return line == "1" if line else None

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


_idle: list[MathProcess] = []  # as many as threads that have asked at the same time


def check() -> None:
    """Raises EvaluationError if math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise EvaluationError(
            "Scoring mathematics needs math-verify: pip install 'hogwild-agents[eval]'."
        )


def _ask(**question: Any) -> float:
    """1.0 if a process finds the answer right."""
    check()
    try:
        process = _idle.pop()
    except IndexError:
        process = MathProcess()
    is_right = process.is_right(**question)
    if is_right is None:
        process.close()
    else:
        _idle.append(process)
    return float(is_right is True)


def math(problem: Problem, text: str) -> float:
    r"""1.0 if math-verify finds the answer equal: the last box, or else the text itself.

    LaTeX, fractions, decimals, percentages, sets, intervals, tuples, matrices, expressions,
    equations, answers with units, and words.
    """
    boxed = boxes(text)
    answer = boxed[-1] if boxed else text.strip()[-MAX_LENGTH:]
    if len(answer) > MAX_LENGTH:
        return 0.0
    if not boxed:  # the text may be nothing but the answer
        score = _ask(rules="math", truth=str(problem.truth), answer=answer, alone=True)
        if score or len(answer) < len(text.strip()):
            return score
    return _ask(rules="math", truth=str(problem.truth), answer=answer, alone=bool(boxed))


_FINALLY = re.compile(r"final answer is", re.IGNORECASE)
_DOLLARS = re.compile(r"\$([^$\n]+)\$")


def olympiad(problem: Problem, text: str) -> float:
    r"""1.0 if all answers are right by the rules of OlympiadBench (see `math_process`).

    Only what follows the last "final answer is" counts: the boxes of the last paragraph that has
    any, else what stands between `$` in the last line, else the whole text.

    The problem's `extra` may have `error` and `unit`, as in the data set.
    """
    text = _FINALLY.split(text)[-1].strip()
    paragraphs = [part for part in re.split(r"\n[ \t]*\n", text) if "boxed" in part]
    answers = boxes(paragraphs[-1]) if paragraphs else []
    answers = answers or _DOLLARS.findall(text.rpartition("\n")[2])
    answer = ",".join(dict.fromkeys(answers)) or text
    if len(answer) > MAX_LENGTH:
        return 0.0
    return _ask(
        rules="olympiad",
        truth=str(problem.truth),
        answer=answer,
        error=problem.extra.get("error") or "",
        unit=problem.extra.get("unit") or "",
    )
