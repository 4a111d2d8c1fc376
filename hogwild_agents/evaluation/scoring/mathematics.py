r"""Marks for mathematics: finds the answer in a text, and asks a judge whether it is right.

The judge is another process (see `judge`): sympy can be made to compute for ever, and math-verify's
own time limits are signals, which only a main thread may use. A judge that is over its time or its
memory ends, the answer is wrong, and the next one is marked by a new judge.
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
from hogwild_agents.evaluation.scoring.answers import boxes
from hogwild_agents.evaluation.scoring.math_process import SECONDS

LONGEST = 2_000
"""No answer is longer: what is, is wrong, and what stands far before the end is not looked at."""


class Judge:
    """A process that judges; several threads must not ask at once."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("math_process.py")), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if self._line() != "ready":
            self.close()
            raise EvaluationError(
                "The judge of mathematics did not start. See why with "
                f"`{sys.executable} -c 'import math_verify'`."
            )

    def right(self, **question: Any) -> bool | None:
        """Whether it says so; None if the question was too much for it and it is no more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        answer = self._line()
        return answer == "1" if answer else None

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


_idle: list[Judge] = []  # those that wait; there are as many as threads that once asked together


def check() -> None:
    """Raises EvaluationError where the packages are not installed that a judge needs."""
    if importlib.util.find_spec("math_verify") is None:
        raise EvaluationError(
            "Marking mathematics needs math-verify: pip install 'hogwild-agents[eval]'."
        )


def _ask(**question: Any) -> float:
    """1.0 if a judge says that it is right."""
    check()
    try:
        judge = _idle.pop()
    except IndexError:
        judge = Judge()
    right = judge.right(**question)
    if right is None:
        judge.close()
    else:
        _idle.append(judge)
    return float(right is True)


def math(problem: Problem, text: str) -> float:
    r"""1.0 if math-verify finds the answer equal: the last box, or else what the text states.

    LaTeX, fractions, decimals, percentages, sets, intervals, tuples, matrices, expressions,
    equations, answers with units, and words.
    """
    found = boxes(text)
    answer = found[-1] if found else text.strip()[-LONGEST:]
    if len(answer) > LONGEST:
        return 0.0
    if not found:  # an answer may come without a box, and nothing else
        alone = _ask(rules="math", truth=str(problem.truth), answer=answer, alone=True)
        if alone or len(answer) < len(text.strip()):
            return alone
    return _ask(rules="math", truth=str(problem.truth), answer=answer, alone=bool(found))


_FINALLY = re.compile(r"final answer is", re.IGNORECASE)
_DOLLARS = re.compile(r"\$([^$\n]+)\$")


def olympiad(problem: Problem, text: str) -> float:
    r"""1.0 if all answers are right by the rules of OlympiadBench (see `judge`).

    They are looked for after the last "final answer is": in the boxes of the last paragraph that
    has one, else between the `$` of the last line, else in all of the text.

    The problem's `extra` may have `error` and `unit`, as in the data set.
    """
    text = _FINALLY.split(text)[-1].strip()
    paragraphs = [part for part in re.split(r"\n[ \t]*\n", text) if "boxed" in part]
    found = boxes(paragraphs[-1]) if paragraphs else []
    found = found or _DOLLARS.findall(text.rpartition("\n")[2])
    answer = ",".join(dict.fromkeys(found)) or text
    if len(answer) > LONGEST:
        return 0.0
    return _ask(
        rules="olympiad",
        truth=str(problem.truth),
        answer=answer,
        error=problem.extra.get("error") or "",
        unit=problem.extra.get("unit") or "",
    )
