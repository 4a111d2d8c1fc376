r"""Scorers: how right an answer is, from 0 to 1.

Example:
    from hogwild_agents.evaluation.problems import Problem
    from hogwild_agents.evaluation.scoring import mark

    half = Problem("half", "What is 2 - 1.5?", truth="\\frac{1}{2}", scorer="math")
    print(mark(half, "So it is \\boxed{0.5}."))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import mathematics, programs, text_match

Scorer: TypeAlias = Callable[[Problem, str], float]
"""Scores a text: a whole reply, or only its answer. An exception counts as 0."""

SCORERS: dict[str, Scorer] = {
    "math": mathematics.math,
    "olympiad": mathematics.olympiad,
    "number": text_match.number,
    "exact": text_match.exact,
    "choice": text_match.choice,
    "list": text_match.list_share,
    "code": programs.code,
}
"""The scorers by name; you may add your own."""


def check(scorers: Iterable[str]) -> None:
    """Checks before a run that all scorers can work.

    Raises:
        EvaluationError: There is no such scorer, or a package is missing.
    """
    for name in sorted(set(scorers)):
        if name not in SCORERS:
            raise EvaluationError(f"There is no scorer {name!r}: choose from {', '.join(SCORERS)}.")
        if SCORERS[name] in (mathematics.math, mathematics.olympiad):
            mathematics.check()


def mark(problem: Problem, text: str) -> float:
    """How right a text is, from 0 to 1. No text can make this raise or hang.

    Raises:
        EvaluationError: The problem's scorer does not exist, or a package is missing.
    """
    check([problem.scorer])
    try:
        score = SCORERS[problem.scorer](problem, text)
    except EvaluationError:
        raise
    except Exception:  # noqa: BLE001  an answer that breaks a scorer is wrong
        return 0.0
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


__all__ = ["SCORERS", "Scorer", "check", "mark"]
