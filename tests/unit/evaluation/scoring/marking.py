"""Short ways to score a text."""

from __future__ import annotations

import json
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import mark


def score(scorer: str, truth: Any, text: str, **extra: Any) -> float:
    """The score of a text."""
    return mark(Problem("p", "q", truth, scorer, extra), text)


def boxed(answer: str) -> str:
    """A reply that ends in a box."""
    return f"We find 7 first.\n\nSo it is $\\boxed{{{answer}}}$."


def cases_of(*cases: tuple[str, str], kind: str = "stdin") -> str:
    """Tests in LiveCodeBench's format."""
    return json.dumps(
        [{"input": text, "output": expected, "testtype": kind} for text, expected in cases]
    )
