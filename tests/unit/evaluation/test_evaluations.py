"""An evaluation from beginning to end, from Python."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from hogwild_agents.errors import EvaluationError, HogwildError
from hogwild_agents.evaluation import (
    Chain,
    Evaluation,
    Hogwild,
    Problem,
    Setting,
    Strategy,
    evaluate,
)
from tests.unit.evaluation.test_runs import Adds

PROBLEMS = [
    Problem(f"p{number}", f"{number} + 1?", str(number + 1), "exact") for number in range(5)
]


class Checked(Adds):
    """Adds, and can be told to refuse a model."""

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        if setting.model != "pocket":
            raise EvaluationError(f"not on {setting.model}")


def run(out: Path, **given: Any) -> Evaluation:
    """A small evaluation."""
    usual: dict[str, Any] = {
        "problems": PROBLEMS,
        "strategies": [Checked("zeta"), Checked("alpha")],
        "out": out,
        "budgets": [8, 4, 16, 4],
        "seeds": [0, 1],
    }
    return evaluate(**usual | given)


def test_what_comes_of_it(tmp_path: Path) -> None:
    """All records in the order of problems, whoever was done first; strategies as asked for."""
    done = run(tmp_path / "run", in_flight=3)
    assert done.strategies == ("zeta", "alpha")
    keys = [record.key for record in done.records]
    assert keys == sorted(keys)
    assert len(keys) == 5 * 2 * 2 * 3
    assert {key.budget for key in keys} == {4, 8, 16}
    assert len(done.transcripts) == 5 * 2 * 2
    assert done.about["dataset"].endswith("5 problems")
    analysis = done.analysis()
    assert analysis.strategies == ("zeta", "alpha")
    page = done.report()
    assert page == tmp_path / "run" / "report.html"
    assert "zeta" in page.read_text()


def test_where_a_loop_runs_already(tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> Evaluation:
        return run(tmp_path / "run")

    assert len(asyncio.run(cell()).records) == 60


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"problems": []}, "no problems"),
        ({"strategies": []}, "no strategies"),
        ({"budgets": []}, "no budgets"),
        ({"seeds": []}, "no seeds"),
        ({"budgets": [0, 8]}, "A budget of 0"),
        ({"seeds": [1, 1]}, "The seed '1' is there twice"),
        ({"strategies": [Checked(), Checked()]}, "The strategy 'adds' is there twice"),
        ({"problems": [PROBLEMS[0], PROBLEMS[0]]}, "The problem 'p0' is there twice"),
        ({"problems": [replace(PROBLEMS[0], scorer="taste")]}, "taste"),
        ({"setting": Setting("elsewhere")}, "not on elsewhere"),
        ({"setting": Setting(device="nonsense")}, "nonsense"),
        ({"strategies": ["single"]}, "'single' is no strategy: .*strategies_of"),
        ({"strategies": [RunnableLambda(len)]}, r"no strategy: wrap a runnable in Chain"),
        ({"strategies": [Hogwild(7)]}, "1 to 4"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    """It is said before anything is asked, and nothing is written."""
    with pytest.raises(HogwildError, match=words):
        run(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed",
    [
        [replace(PROBLEMS[0], question="0 + 2?"), *PROBLEMS[1:]],
        [replace(PROBLEMS[0], truth="7"), *PROBLEMS[1:]],
        PROBLEMS[:4],
    ],
)
def test_other_problems_under_the_same_names(tmp_path: Path, changed: Sequence[Problem]) -> None:
    """Records of one would pass for records of the other: refused."""
    run(tmp_path / "run")
    with pytest.raises(EvaluationError, match=r"(questions and truths|problems) was"):
        run(tmp_path / "run", problems=changed)


def test_another_precision_is_another_run(tmp_path: Path) -> None:
    """Its figures would mix with those that are there."""
    run(tmp_path / "run")
    with pytest.raises(EvaluationError, match="dtype was 'auto' and is 'bfloat16'"):
        run(tmp_path / "run", setting=Setting(dtype="bfloat16"))


def test_all_strategies_are_one_kind() -> None:
    """Whatever has these three can be evaluated."""
    strategies: list[Strategy] = [Hogwild(2), Chain(None, "mine"), Checked()]  # type: ignore[arg-type]
    assert [strategy.name for strategy in strategies] == ["hogwild-2", "mine", "adds"]
