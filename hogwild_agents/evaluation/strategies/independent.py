"""Workers that do not see each other: the most frequent answer, or the first one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import (
    BudgetResult,
    Setting,
    TeamRun,
    run_team,
    steps_of,
)
from hogwild_agents.evaluation.strategies.base import Outcome

SAMPLING_TEMPERATURE = 0.7
"""For a model that decodes greedily: otherwise all workers would write the same (Wang et al., arXiv
2203.11171, sample at 0.5 to 0.7)."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Independent workers; the answer is the most frequent one (self-consistency)."""

    workers: int = 2

    @property
    def name(self) -> str:
        """Such as `vote-4`."""
        return f"vote-{self.workers}"

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        setting.team(1, 0)

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`."""
        runs = await _run_workers(setting, self.workers, problem, seed, budgets)
        by_budget = {}
        for budget in budgets:
            results = [run.by_budget[budget] for run in runs]
            votes = Counter(result.answer for result in results if result.answer is not None)
            answer = votes.most_common(1)[0][0] if votes else None  # on a tie, the first worker's
            passes = max(result.passes for result in results)
            by_budget[budget] = _combined(results, answer, passes)
        return _outcome(runs, by_budget)


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """Independent workers; the answer is that of the worker that finishes first."""

    workers: int = 2

    @property
    def name(self) -> str:
        """Such as `first-4`."""
        return f"first-{self.workers}"

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        setting.team(1, 0)

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`."""
        runs = await _run_workers(setting, self.workers, problem, seed, budgets)
        by_budget = {}
        for budget in budgets:
            results = [run.by_budget[budget] for run in runs]
            finished = [
                (run.result.passes, index)
                for index, run in enumerate(runs)
                if run.result.finish_reason == "answer" and run.result.passes <= budget
            ]
            winner = results[min(finished)[1]] if finished else results[0]
            by_budget[budget] = _combined(results, winner.answer, winner.passes)
        return _outcome(runs, by_budget)


async def _run_workers(
    setting: Setting, workers: int, problem: Problem, seed: int, budgets: Sequence[int]
) -> list[TeamRun]:
    """Runs single workers at the same time, each with its own random numbers."""
    sampling = setting.team(1, seed).sampling
    if sampling.greedy:
        sampling = replace(sampling, temperature=SAMPLING_TEMPERATURE)
    return await asyncio.gather(
        *(
            run_team(setting, 1, problem, 1000 * seed + index, budgets, sampling=sampling)
            for index in range(workers)
        )
    )


def _combined(results: Sequence[BudgetResult], answer: str | None, passes: int) -> BudgetResult:
    """The result of all workers: tokens and memory add up, passes run in parallel."""
    return BudgetResult(
        answer,
        passes,
        sum(result.tokens for result in results),
        max(result.seconds for result in results),
        sum(result.memory for result in results),
    )


def _outcome(runs: Sequence[TeamRun], by_budget: dict[int, BudgetResult]) -> Outcome:
    names = tuple(f"{run.result.workers[0]} {number}" for number, run in enumerate(runs, 1))
    steps = tuple(
        step | {"worker": name}
        for name, run in zip(names, runs, strict=True)
        for step in steps_of(run.result)
    )
    replies = "\n\n".join(run.result.reply for run in runs if run.result.reply)
    return Outcome(by_budget, names, steps, replies)
