"""The process that compares mathematics: it may end at any question, and others follow."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.scoring import check, driver, math_process, mathematics
from hogwild_agents.evaluation.scoring.mathematics import MathProcess
from tests.unit.evaluation.scoring.marking import boxed, score

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def process() -> Iterator[MathProcess]:
    """A process with little time for each answer."""
    process = MathProcess(seconds=1.0)
    yield process
    process.close()


def test_an_endless_answer_ends_the_process(process: MathProcess) -> None:
    assert process.is_right(rules="math", truth="1", answer="1", alone=True) is True
    assert process.is_right(rules="math", truth="1", answer="2", alone=True) is False
    assert process.is_right(rules="math", truth="1", answer=ENDLESS, alone=True) is None
    assert process.is_right(rules="math", truth="1", answer="1", alone=True) is None  # it has ended


def test_after_an_endless_answer_others_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "_idle", [MathProcess(seconds=1.0)])
    assert score("math", "1", boxed(ENDLESS)) == 0
    assert score("math", "\\frac{1}{2}", boxed("0.5")) == 1


def test_threads_mark_at_once() -> None:
    """math-verify itself raises outside of the main thread."""
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


def test_an_invalid_question_is_not_right() -> None:
    process = MathProcess()
    assert process.is_right(rules="none") is False
    assert process.is_right(rules="olympiad", truth="1", answer="2", error="much") is False
    assert process.is_right(rules="olympiad", truth="1", answer="1") is True
    process.close()


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(EvaluationError, match="did not start"):
        MathProcess()


def test_without_math_verify_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for scorer in ("math", "olympiad"):
        with pytest.raises(EvaluationError, match=r"pip install 'hogwild-agents\[eval\]'"):
            score(scorer, "1", "1")
        with pytest.raises(EvaluationError, match="math-verify"):
            check(["number", scorer])
    assert score("number", "1", "1") == 1


def test_the_scripts_import_nothing_of_the_package() -> None:
    """They start without torch."""
    for script in (math_process.__file__, driver.__file__):
        assert script is not None
        assert "hogwild" not in Path(script).read_text()
