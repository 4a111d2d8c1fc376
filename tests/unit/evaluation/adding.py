"""A strategy that adds, and runs of it: what tests of runs share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.runs import RunFolder, run_trials, trials_of
from hogwild_agents.evaluation.sessions import BudgetResult, Setting
from hogwild_agents.evaluation.strategies import Outcome

BUDGETS = [4, 8, 16]
PROBLEMS = [
    Problem(f"p{number}", f"{number} + 1?", str(number + 1), "exact") for number in range(6)
]
CONFIG: dict[str, Any] = {"data": "sums", "budgets": BUDGETS}


@dataclass
class Adds:
    """Answers right from some budget on; problem and seed decide which one.

    Attributes:
        name: See `Strategy`.
        delay: Seconds that each answer takes.
        running: Answers that are being worked on.
        max_running: The most of them at any time.
        calls: Problem and seed of every call.
        errors: What to raise for a problem, one error per call.
    """

    name: str = "adds"
    delay: float = 0.0
    running: int = 0
    max_running: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)
    errors: dict[str, list[Exception]] = field(default_factory=dict)

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`."""
        assert setting.model == "pocket"
        self.calls.append((problem.id, seed))
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        await asyncio.sleep(self.delay)
        self.running -= 1
        if self.errors.get(problem.id):
            raise self.errors[problem.id].pop(0)
        needed = Random(f"{problem.id} {seed} {self.name}").choice([3, 6, 12, 24])
        right = str(int(problem.question.split()[0]) + 1)
        by_budget = {
            budget: BudgetResult(right if needed <= budget else None, min(needed, budget), 2, 0.5)
            for budget in budgets
        }
        step = {
            "worker": "A",
            "index": 1,
            "text": "…",
            "begun": 1,
            "ended": 2,
            "asked": "",
            "answer": None,
        }
        return Outcome(by_budget, ("A",), (step,), "done", {"balance": 1.0})


def mark_exactly(problem: Problem, answer: str) -> float:
    """Scores a sum."""
    return float(answer == problem.truth)


def run_all(
    folder: Path, *strategies: Adds, config: Mapping[str, Any] = CONFIG, **options: Any
) -> RunFolder:
    """Runs all problems with two seeds to the end; returns what is on disk then."""
    run = RunFolder(folder, config)
    trials = trials_of(PROBLEMS, strategies, [0, 1])
    asyncio.run(run_trials(Setting(), trials, BUDGETS, mark_exactly, run, **options))
    return RunFolder(folder, config)
