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
from tests.unit.evaluation import adding
from tests.unit.evaluation.adding import Adds

PROBLEMS = adding.PROBLEMS[:5]


class Checked(Adds):
    """Adds, and can be told to refuse a model."""

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        if setting.model != "pocket":
            raise EvaluationError(f"not on {setting.model}")


def run(out: Path, **options: Any) -> Evaluation:
    """A small evaluation."""
    defaults: dict[str, Any] = {
        "problems": PROBLEMS,
        "strategies": [Checked("zeta"), Checked("alpha")],
        "out": out,
        "budgets": [8, 4, 16, 4],
        "seeds": [0, 1],
    }
    return evaluate(**defaults | options)


def test_what_comes_of_it(tmp_path: Path) -> None:
    """All records in the order of problems; strategies in the given order."""
    evaluation = run(tmp_path / "run", in_flight=3)
    assert evaluation.strategies == ("zeta", "alpha")
    keys = [record.key for record in evaluation.records]
    assert keys == sorted(keys)
    assert len(keys) == 5 * 2 * 2 * 3
    assert {key.budget for key in keys} == {4, 8, 16}
    assert len(evaluation.transcripts) == 5 * 2 * 2
    assert evaluation.about["dataset"].endswith("5 problems")
    analysis = evaluation.analysis()
    assert analysis.strategies == ("zeta", "alpha")
    page = evaluation.report()
    assert page == tmp_path / "run" / "report.html"
    assert "zeta" in page.read_text()


def test_where_a_loop_runs_already(tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> Evaluation:
        return run(tmp_path / "run")

    assert len(asyncio.run(cell()).records) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problems": []}, "no problems"),
        ({"budgets": [0, 8]}, "The budget 0"),
        ({"problems": [PROBLEMS[0], PROBLEMS[0]]}, "The problem 'p0' occurs 2 times"),
        ({"problems": [replace(PROBLEMS[0], scorer="taste")]}, "taste"),
        ({"setting": Setting("elsewhere")}, "not on elsewhere"),
        ({"setting": Setting(device="nonsense")}, "nonsense"),
        ({"strategies": ["single"]}, "'single' is not a strategy: .*strategies_of"),
        ({"strategies": [RunnableLambda(len)]}, "wrap a runnable in Chain"),
        ({"strategies": [Hogwild(7)]}, "1 to 4"),
    ],
)
def test_invalid_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """They are refused before any work, and nothing is written."""
    with pytest.raises(HogwildError, match=message):
        run(tmp_path / "run", **options)
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
    """They are refused: the records would not match the questions."""
    run(tmp_path / "run")
    with pytest.raises(EvaluationError, match=r"(questions and truths|problems) was"):
        run(tmp_path / "run", problems=changed)


def test_another_precision_is_another_run(tmp_path: Path) -> None:
    """Its numbers would mix with those in the folder."""
    run(tmp_path / "run")
    with pytest.raises(EvaluationError, match="dtype was 'auto' and is 'bfloat16'"):
        run(tmp_path / "run", setting=Setting(dtype="bfloat16"))


def test_all_strategies_are_one_kind() -> None:
    """Anything with a name, `check` and `run` can be evaluated."""
    strategies: list[Strategy] = [Hogwild(2), Chain(None, "mine"), Checked()]  # type: ignore[arg-type]
    assert [strategy.name for strategy in strategies] == ["hogwild-2", "mine", "adds"]
