"""What every strategy is, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import BudgetResult, Setting


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy achieved on a problem.

    Attributes:
        by_budget: The result at each budget.
        workers: Names of the workers.
        steps: As in `Transcript`.
        reply: The final reply.
        measures: As in `Record`.
    """

    by_budget: dict[int, BudgetResult]
    workers: tuple[str, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    reply: str = ""
    measures: dict[str, float] = field(default_factory=dict)


class Strategy(Protocol):
    """A way to answer problems."""

    @property
    def name(self) -> str:
        """Unique within a run, and shown in reports; such as `vote-4`."""

    def check(self, setting: Setting) -> None:
        """Raises HogwildError if the strategy cannot run on this model. Called before any work."""

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """Answers a problem within each of several budgets, given in ascending order."""
