"""How a team worked together: what was done twice, who did how much, what checks led to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hogwild_agents.team import Result

SHINGLE = 6
"""Words in a row that, written by two workers, count as work done twice."""


def measures_of(result: Result) -> dict[str, float]:
    """The measures of a finished session; see `Record`."""
    answers = [one.answer for one in result.interruptions if isinstance(one.answer, bool)]
    return {
        "duplicated": duplicated([(step.worker, step.written) for step in result.steps]),
        "balance": balance([*result.tokens.values()]),
        "checks": float(len(result.interruptions)),
        "yes": float(sum(answers)),
        "pivots": float(
            sum(one.answer is True and bool(one.followed) for one in result.interruptions)
        ),
    }


def duplicated(steps: Sequence[tuple[str, str]]) -> float:
    """Share of the runs of `SHINGLE` words that another worker had written before.

    Args:
        steps: (worker, text), in the order in which they were finished.
    """
    writers: dict[tuple[str, ...], str] = {}
    total = twice = 0
    for worker, text in steps:
        words = text.lower().split()
        for start in range(len(words) - SHINGLE + 1):
            run = tuple(words[start : start + SHINGLE])
            total += 1
            twice += writers.setdefault(run, worker) != worker
    return twice / total if total else 0.0


def balance(tokens: Sequence[int]) -> float:
    """How evenly tokens are spread over workers: their entropy over the largest possible."""
    total = sum(tokens)
    if len(tokens) < 2 or not total:
        return 1.0
    shares = [count / total for count in tokens if count]
    return -sum(share * math.log(share) for share in shares) / math.log(len(tokens))
