"""How a team worked together: duplicated work, balance between workers, effect of the checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hogwild_agents.team import Result

SHINGLE = 6
"""So many words in a row, written by two workers, count as duplicated work."""


def measures_of(result: Result) -> dict[str, float]:
    """The measures of a finished session; `Record` explains them."""
    interruptions = result.interruptions
    return {
        "duplicated": duplicated([(step.worker, step.written) for step in result.steps]),
        "balance": balance([*result.tokens.values()]),
        "checks": float(len(interruptions)),
        "yes": float(sum(item.answer is True for item in interruptions)),
        "pivots": float(sum(item.answer is True and bool(item.followed) for item in interruptions)),
    }


def duplicated(steps: Sequence[tuple[str, str]]) -> float:
    """The share of all runs of `SHINGLE` words that another worker had already written.

    Args:
        steps: (worker, text), in the order in which the steps were finished.
    """
    first_writers: dict[tuple[str, ...], str] = {}
    total = duplicates = 0
    for worker, text in steps:
        words = text.lower().split()
        for start in range(len(words) - SHINGLE + 1):
            shingle = tuple(words[start : start + SHINGLE])
            total += 1
            duplicates += first_writers.setdefault(shingle, worker) != worker
    return duplicates / total if total else 0.0


def balance(tokens: Sequence[int]) -> float:
    """How evenly tokens are spread over workers: entropy divided by its maximum."""
    total = sum(tokens)
    if len(tokens) < 2 or not total:
        return 1.0
    shares = [count / total for count in tokens if count]
    return -sum(share * math.log(share) for share in shares) / math.log(len(tokens))
