"""Strategies on the model that ships inside, and what they make of what their workers say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation import skeleton, strategies
from hogwild_agents.evaluation.measures import SHINGLE, balance, duplicated
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import Reached, Said, Setting
from hogwild_agents.evaluation.skeleton import Skeleton
from hogwild_agents.evaluation.strategies import (
    First,
    Hogwild,
    Outcome,
    Strategy,
    Vote,
    strategies_of,
)
from hogwild_agents.pocket.tasks import make_task_list, score

MADE = [make_task_list(f"strategies {seed}", 4) for seed in range(3)]
PROBLEMS = [Problem(f"p{n}", made.text, made.answers, "list") for n, made in enumerate(MADE)]
BUDGETS = [16, 48, 96, 256]


def ask(strategy: Strategy, problem: Problem = PROBLEMS[0], seed: int = 0) -> Outcome:
    """What a strategy comes to on the shipped model."""
    return asyncio.run(strategy.run(Setting(), problem, seed, BUDGETS))


def shares(outcome: Outcome, number: int = 0) -> list[float]:
    """How much of the problem is right at each budget."""
    return [score(MADE[number], outcome.reached[budget].answer or "") for budget in BUDGETS]


@pytest.mark.parametrize(
    "strategy", [Hogwild(1), Hogwild(2), Hogwild(2, "contiguous", asked=False), Vote(2), First(2)]
)
def test_every_strategy_solves_them_in_time(strategy: Strategy) -> None:
    """Nothing at once, all in the end; what it used grows with the budget and stays within."""
    outcome = ask(strategy)
    assert [*outcome.reached] == BUDGETS
    found = shares(outcome)
    assert found[0] == 0
    assert found[-1] == 1
    at = [outcome.reached[budget] for budget in BUDGETS]
    for one, more in itertools.pairwise(at):
        assert one.seconds <= more.seconds
        assert one.answer is None or more.answer is not None
    for budget, one in zip(BUDGETS, at, strict=True):
        assert 0 < one.passes <= budget + 96  # the early finisher's own
        assert one.tokens > 0
        assert one.memory > 0
    assert outcome.steps
    assert {step["worker"] for step in outcome.steps} <= {*outcome.workers}


def test_a_team_is_ahead_where_it_is_tight() -> None:
    """Of a lone worker, at the budget at which the team is done; in memory it takes little more."""
    for number, problem in enumerate(PROBLEMS):
        team, single = ask(Hogwild(2), problem), ask(Hogwild(1), problem)
        assert shares(team, number)[2] > shares(single, number)[2]
        assert team.reached[256].passes < single.reached[256].passes
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
        assert again.reached[budget].answer == first.reached[budget].answer
        assert again.reached[budget].tokens == first.reached[budget].tokens
    assert [step["text"] for step in again.steps] == [step["text"] for step in first.steps]


@dataclass
class Watched:
    """Stands in for a session that was followed."""

    reached: dict[int, Reached]
    result: Any


@dataclass
class Told:
    """What of a result the strategies read."""

    passes: int
    finish_reason: str
    workers: tuple[str, ...] = ("Alice",)
    steps: tuple[Any, ...] = ()
    unfinished: tuple[Any, ...] = ()
    interruptions: tuple[Any, ...] = ()
    reply: str = ""


def apart(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[str | None], passes: Sequence[int]
) -> None:
    """Lets lone workers answer so, each after so many passes."""
    found = [
        Watched(
            {8: Reached(answer, used, 10, 1.0, 100)}, Told(used, "answer" if answer else "budget")
        )
        for answer, used in zip(answers, passes, strict=True)
    ]

    async def watch(*_: Any, **__: Any) -> Any:
        return found.pop(0)

    monkeypatch.setattr(strategies, "watch", watch)


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
    """The answer that most give, the first of equals; who has none does not vote."""
    apart(monkeypatch, answers, [3, 8, 5])
    outcome = asyncio.run(Vote(3).run(Setting(), PROBLEMS[0], 0, [8]))
    assert outcome.reached[8] == Reached(expected, 8, 30, 1.0, 300)


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
    """The answer of whoever was done first; being without one is not being done."""
    apart(monkeypatch, answers, passes)
    outcome = asyncio.run(First(3).run(Setting(), PROBLEMS[0], 0, [8]))
    assert outcome.reached[8] == Reached(expected, used, 30, 1.0, 300)


def test_an_outline_and_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points are written at once, within what the outline has left of each budget."""
    asked: list[str] = []

    async def say(_: Setting, text: str, *__: int) -> Said:
        asked.append(text)
        if len(asked) == 1:
            return Said(["1. Add", " all\n", "2. State", " it"], 20, 1.0)
        return Said([f"word{n} " for n in range(5)] + ["\\boxed{42}"], 30, 2.0)

    monkeypatch.setattr(skeleton, "say", say)
    outcome = asyncio.run(Skeleton().run(Setting(), PROBLEMS[0], 0, [3, 6, 9, 10, 20]))
    assert len(asked) == 3
    assert "point 2: State it" in asked[2]
    at = outcome.reached
    assert [at[budget].answer for budget in (3, 6, 9, 10, 20)] == [None, None, None, "42", "42"]
    assert [at[budget].passes for budget in (3, 6, 9, 10, 20)] == [3, 6, 9, 10, 10]
    assert [at[budget].tokens for budget in (3, 6, 9, 10, 20)] == [3, 8, 14, 16, 16]
    assert outcome.workers == ("outline", "point 1", "point 2")
    assert outcome.steps[2]["begun"] == 4


def test_an_outline_without_points() -> None:
    """The shipped model cannot write one: no answer, and no failure."""
    outcome = ask(Skeleton())
    assert {one.answer for one in outcome.reached.values()} == {None}


def test_names() -> None:
    """Each strategy is asked for by name, for every size of team."""
    made = strategies_of(
        ["single", "vote", "hogwild", "unchecked"], [1, 2, 4], ["combined", "contiguous"]
    )
    assert [one.name for one in made] == [
        "single", "vote-2", "vote-4",
        "hogwild-2", "hogwild-2-contiguous", "hogwild-4", "hogwild-4-contiguous",
        "hogwild-2-unchecked", "hogwild-2-contiguous-unchecked",
        "hogwild-4-unchecked", "hogwild-4-contiguous-unchecked",
    ]  # fmt: skip
    assert [one.name for one in strategies_of(["skeleton", "first"], [3])] == [
        "skeleton",
        "first-3",
    ]


@pytest.mark.parametrize(
    ("names", "workers", "words"),
    [
        (["hogwild", "voting"], [2], "no strategy 'voting': choose of single, vote"),
        (["vote"], [1], "vote needs teams of 2"),
        (["single", "single"], [2], "asked for twice"),
    ],
)
def test_names_that_are_none(names: list[str], workers: list[int], words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        strategies_of(names, workers)


# Measures.


def test_work_done_twice() -> None:
    """What another wrote before counts, what one repeats himself does not."""
    mine = "one two three four five six seven"
    assert duplicated([("A", mine), ("B", "quite another text of more than six words")]) == 0
    assert duplicated([("A", mine), ("A", mine)]) == 0
    assert duplicated([("A", mine), ("B", mine.upper())]) == 0.5
    assert duplicated([("A", " ".join(mine.split()[: SHINGLE - 1]))]) == 0
    assert duplicated([]) == 0


@given(st.lists(st.integers(0, 1000), max_size=6))
def test_balance(tokens: list[int]) -> None:
    """1 if all wrote as much, 0 if one wrote all, in between otherwise."""
    found = balance(tokens)
    assert 0 <= found <= 1 + 1e-9
    if len(tokens) > 1 and sum(tokens):
        assert (found > 1 - 1e-9) == (len({*tokens}) == 1)
        assert (found < 1e-9) == (sum(count > 0 for count in tokens) == 1)
