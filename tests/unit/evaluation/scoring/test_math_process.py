"""The process that judges: it survives nothing, and nothing depends on it."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator

import pytest

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.scoring import check, mathematics
from hogwild_agents.evaluation.scoring import math_process as judge
from hogwild_agents.evaluation.scoring.mathematics import Judge
from tests.unit.evaluation.scoring.marking import boxed, score

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def hurried() -> Iterator[Judge]:
    """A judge with little time for each answer."""
    made = Judge(seconds=1.0)
    yield made
    made.close()


def test_an_endless_answer_ends_the_judge_in_time(hurried: Judge) -> None:
    assert hurried.right(rules="math", truth="1", answer="1", alone=True) is True
    assert hurried.right(rules="math", truth="1", answer="2", alone=True) is False
    began = time.monotonic()
    assert hurried.right(rules="math", truth="1", answer=ENDLESS, alone=True) is None
    assert 0.9 < time.monotonic() - began < 5
    assert hurried.right(rules="math", truth="1", answer="1", alone=True) is None  # it is no more


def test_after_an_endless_answer_others_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "_idle", [Judge(seconds=1.0)])
    assert score("math", "1", boxed(ENDLESS)) == 0
    assert score("math", "\\frac{1}{2}", boxed("0.5")) == 1


def test_threads_mark_at_once() -> None:
    """math-verify by itself raises outside of the main thread."""
    marks: list[float] = []

    def work(number: int) -> None:
        truth = f"\\frac{{{number}}}{{2}}"
        marks.extend(score("math", truth, boxed(str(number / 2))) for _ in range(3))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert marks == [1.0] * 9


def test_a_question_that_makes_no_sense_is_not_right() -> None:
    made = Judge()
    assert made.right(rules="none") is False
    assert made.right(rules="olympiad", truth="1", answer="2", error="much") is False
    assert made.right(rules="olympiad", truth="1", answer="1") is True
    made.close()


def test_a_judge_that_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics.sys, "executable", "/bin/true")
    with pytest.raises(EvaluationError, match="did not start"):
        Judge()


def test_without_math_verify_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for scorer in ("math", "olympiad"):
        with pytest.raises(EvaluationError, match=r"pip install 'hogwild-agents\[eval\]'"):
            score(scorer, "1", "1")
        with pytest.raises(EvaluationError, match="math-verify"):
            check(["number", scorer])
    assert score("number", "1", "1") == 1


def test_the_judge_knows_nothing_of_the_package() -> None:
    """So that it starts without torch."""
    with open(judge.__file__) as file:
        assert "hogwild" not in file.read()
