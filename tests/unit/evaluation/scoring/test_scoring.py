"""Scores are from 0 to 1, for anything that a model may write."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.scoring import SCORERS, check, mark
from tests.unit.evaluation.scoring.marking import cases_of, score

TRUTHS: dict[str, Any] = {
    "math": "\\frac{1}{2}",
    "olympiad": "3",
    "number": "18",
    "exact": "Paris",
    "choice": "B",
    "list": ["17", "23"],
    "code": "passes",
}

HOSTILE = {
    "letters": "x" * 10**6,
    "digits": "1" * 10**6,
    "boxes": "\\boxed{" * 10**5,
    "opened": "\\text{" * 10**5,
    "closed": "}" * 10**6,
    "dollars": "$" * 10**6,
    "fences": "```python\n" * 10**5,
    "brackets in code": "```python\n" + "(" * 10**5 + "\n```",
    "labels": "(a) " * 10**5,
    "answers": "answer is " * 10**5,
    "blank": "\n" * 10**6,
    "power": "\\boxed{9**9**9**9}",
    "great number": "\\boxed{1e999999999}",
    "signs": "\\boxed{" + "\\pm 1," * 250 + "}",
    "no text": "\\boxed{\ud800\x00}",
}


@pytest.mark.parametrize("scorer", TRUTHS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_worth_nothing(
    scorer: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends, and prints nothing."""
    extra = {"tests": [cases_of(("1", "1"))], "seconds": 1} if scorer == "code" else {}
    assert score(scorer, TRUTHS[scorer], HOSTILE[name], **extra) == 0
    assert capfd.readouterr() == ("", "")


def test_every_scorer_is_tried_above() -> None:
    assert set(TRUTHS) == set(SCORERS)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.3, 0.3), (7, 1), (-1, 0), (math.nan, 0), (math.inf, 0)]
)
def test_scores_are_from_0_to_1(
    value: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "mine", lambda _, text: value if text == "x" else 0.5)
    assert score("mine", "", "x") == expected
    assert score("mine", "", "y") == 0.5


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, KeyError])
def test_a_scorer_that_raises_gives_nothing(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Problem, text: str) -> float:
        raise error(text)

    monkeypatch.setitem(SCORERS, "mine", broken)
    assert score("mine", "", "x") == 0


def test_a_scorer_that_does_not_exist_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"'none': choose from math, olympiad"):
        mark(Problem("p", "q", "1", "none"), "1")
    with pytest.raises(EvaluationError, match="'none'"):
        check(["number", "none"])
    check(SCORERS)
