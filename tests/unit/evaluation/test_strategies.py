"""Strategies on the pocket model, and how they combine the answers of their workers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import BudgetResult, Reply, Setting
from hogwild_agents.evaluation.strategies import (
    FirstAnswer,
    Hogwild,
    Outcome,
    SkeletonOfThought,
    Strategy,
    Vote,
    independent,
    skeleton,
    strategies_of,
)
from hogwild_agents.pocket.tasks import make_task_list, score

TASKS = [make_task_list(f"strategies {seed}", 4) for seed in range(3)]
PROBLEMS = [Problem(f"p{n}", tasks.text, tasks.answers, "list") for n, tasks in enumerate(TASKS)]
BUDGETS = [16, 48, 96, 256]


def ask(strategy: Strategy, problem: Problem = PROBLEMS[0], seed: int = 0) -> Outcome:
    """The outcome of a strategy on the pocket model."""
    return asyncio.run(strategy.run(Setting(), problem, seed, BUDGETS))


def shares(outcome: Outcome, number: int = 0) -> list[float]:
    """How much of the problem is right at each budget."""
    return [score(TASKS[number], outcome.by_budget[budget].answer or "") for budget in BUDGETS]


@pytest.mark.parametrize(
    "strategy",
    [Hogwild(1), Hogwild(2), Hogwild(2, "contiguous", checked=False), Vote(2), FirstAnswer(2)],
)
def test_every_strategy_solves_them_in_time(strategy: Strategy) -> None:
    """Nothing at once, all in the end; what it used grows with the budget and stays within."""
    outcome = ask(strategy)
    assert [*outcome.by_budget] == BUDGETS
    right = shares(outcome)
    assert right[0] == 0
    assert right[-1] == 1
    results = [outcome.by_budget[budget] for budget in BUDGETS]
    for result, later in itertools.pairwise(results):
        assert result.seconds <= later.seconds
        assert result.answer is None or later.answer is not None
    for budget, result in zip(BUDGETS, results, strict=True):
        assert 0 < result.passes <= budget + 96  # the early finisher's own
        assert result.tokens > 0
        assert result.memory > 0
    assert outcome.steps
    assert {step["worker"] for step in outcome.steps} <= {*outcome.workers}


def test_a_team_is_ahead_where_it_is_tight() -> None:
    """Of a lone worker, at the budget at which the team is done; in memory it takes little more."""
    for number, problem in enumerate(PROBLEMS):
        team, single = ask(Hogwild(2), problem), ask(Hogwild(1), problem)
        assert shares(team, number)[2] > shares(single, number)[2]
        assert team.by_budget[256].passes < single.by_budget[256].passes
        assert team.measures["balance"] > 0.9
        assert single.measures == {}


def test_the_same_seed_gives_the_same() -> None:
    """Also where workers sample, whatever runs beside them; another seed gives something else."""
    first = ask(Vote(2), PROBLEMS[1], seed=3)

    async def beside() -> list[Outcome]:
        return await asyncio.gather(
            *(Vote(2).run(Setting(), problem, 3, BUDGETS) for problem in PROBLEMS)
        )

    again = asyncio.run(beside())[1]
    for budget in BUDGETS:
        assert again.by_budget[budget].answer == first.by_budget[budget].answer
        assert again.by_budget[budget].tokens == first.by_budget[budget].tokens
    assert [step["text"] for step in again.steps] == [step["text"] for step in first.steps]


@dataclass
class FakeRun:
    """Stands in for a `TeamRun`."""

    by_budget: dict[int, BudgetResult]
    result: Any


@dataclass
class FakeResult:
    """The attributes of a `Result` that the strategies read."""

    passes: int
    finish_reason: str
    workers: tuple[str, ...] = ("Alice",)
    steps: tuple[Any, ...] = ()
    unfinished: tuple[Any, ...] = ()
    interruptions: tuple[Any, ...] = ()
    reply: str = ""


def fake_runs(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[str | None], passes: Sequence[int]
) -> None:
    """Makes single workers give these answers, each after so many passes."""
    runs = [
        FakeRun(
            {8: BudgetResult(answer, used, 10, 1.0, 100)},
            FakeResult(used, "answer" if answer else "budget"),
        )
        for answer, used in zip(answers, passes, strict=True)
    ]

    async def run_team(*_: Any, **__: Any) -> FakeRun:
        return runs.pop(0)

    monkeypatch.setattr(independent, "run_team", run_team)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["a", "b", "b"], "b"),
        (["a", "b", "c"], "a"),
        ([None, "b", None], "b"),
        ([None, None, None], None),
        (["b", "a", "a"], "a"),
    ],
)
def test_votes(
    monkeypatch: pytest.MonkeyPatch, answers: list[str | None], expected: str | None
) -> None:
    """The most frequent answer, on a tie the first; no answer is no vote."""
    fake_runs(monkeypatch, answers, [3, 8, 5])
    outcome = asyncio.run(Vote(3).run(Setting(), PROBLEMS[0], 0, [8]))
    assert outcome.by_budget[8] == BudgetResult(expected, 8, 30, 1.0, 300)


@pytest.mark.parametrize(
    ("answers", "passes", "expected", "used"),
    [
        (["a", "b", "c"], [7, 3, 5], "b", 3),
        ([None, "b", "c"], [2, 6, 4], "c", 4),
        ([None, None, None], [8, 8, 8], None, 8),
        (["a", "b", "c"], [4, 4, 4], "a", 4),
    ],
)
def test_first(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str | None],
    passes: list[int],
    expected: str | None,
    used: int,
) -> None:
    """The answer of the worker that finished first; a worker without an answer has not finished."""
    fake_runs(monkeypatch, answers, passes)
    outcome = asyncio.run(FirstAnswer(3).run(Setting(), PROBLEMS[0], 0, [8]))
    assert outcome.by_budget[8] == BudgetResult(expected, used, 30, 1.0, 300)


def test_an_outline_and_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points are written at once, within what the outline has left of each budget."""
    prompts: list[str] = []

    async def generate_reply(_: Setting, prompt: str, *__: int) -> Reply:
        prompts.append(prompt)
        if len(prompts) == 1:
            return Reply(["1. Add", " all\n", "2. State", " it"], 20, 1.0)
        return Reply([f"word{n} " for n in range(5)] + ["\\boxed{42}"], 30, 2.0)

    monkeypatch.setattr(skeleton, "generate_reply", generate_reply)
    outcome = asyncio.run(SkeletonOfThought().run(Setting(), PROBLEMS[0], 0, [3, 6, 9, 10, 20]))
    assert len(prompts) == 3
    assert "point 2: State it" in prompts[2]
    results = outcome.by_budget
    assert [results[budget].answer for budget in (3, 6, 9, 10, 20)] == [
        None,
        None,
        None,
        "42",
        "42",
    ]
    assert [results[budget].passes for budget in (3, 6, 9, 10, 20)] == [3, 6, 9, 10, 10]
    assert [results[budget].tokens for budget in (3, 6, 9, 10, 20)] == [3, 8, 14, 16, 16]
    assert outcome.workers == ("outline", "point 1", "point 2")
    assert outcome.steps[2]["begun"] == 4


def test_an_outline_without_points() -> None:
    """The pocket model cannot write one: no answer, and no failure."""
    outcome = ask(SkeletonOfThought())
    assert {result.answer for result in outcome.by_budget.values()} == {None}


def test_names() -> None:
    """Each strategy is made by name, for every team size."""
    strategies = strategies_of(
        ["single", "vote", "hogwild", "unchecked"], [1, 2, 4], ["combined", "contiguous"]
    )
    assert [strategy.name for strategy in strategies] == [
        "single", "vote-2", "vote-4",
        "hogwild-2", "hogwild-2-contiguous", "hogwild-4", "hogwild-4-contiguous",
        "hogwild-2-unchecked", "hogwild-2-contiguous-unchecked",
        "hogwild-4-unchecked", "hogwild-4-contiguous-unchecked",
    ]  # fmt: skip
    assert [strategy.name for strategy in strategies_of(["skeleton", "first"], [3])] == [
        "skeleton",
        "first-3",
    ]


@pytest.mark.parametrize(
    ("names", "workers", "message"),
    [
        (["hogwild", "voting"], [2], "no strategy 'voting': choose from single, vote"),
        (["vote"], [1], "vote needs a team size of 2"),
        (["single", "single"], [2], "occurs twice"),
    ],
)
def test_invalid_names(names: list[str], workers: list[int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        strategies_of(names, workers)
