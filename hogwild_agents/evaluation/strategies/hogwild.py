"""A team on one shared cache, or one worker alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hogwild_agents.evaluation.collaboration import measures_of
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import Setting, run_team, steps_of
from hogwild_agents.evaluation.strategies.base import Outcome


@dataclass(frozen=True, slots=True)
class Hogwild:
    """A team on one cache; with one worker, a plain model.

    Attributes:
        workers: How many.
        layout: What each worker sees of the others.
        checked: Whether workers are asked if their work is redundant.
    """

    workers: int = 2
    layout: str = "combined"
    checked: bool = True

    @property
    def name(self) -> str:
        """`single`, or `hogwild-2` followed by whatever differs from the defaults."""
        if self.workers == 1:
            return "single"
        layout = "" if self.layout == "combined" else f"-{self.layout}"
        return f"hogwild-{self.workers}{layout}{'' if self.checked else '-unchecked'}"

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {} if self.checked else {"interrupts": []}
        return options if self.workers == 1 else options | {"layout": self.layout}

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        setting.team(self.workers, 0, **self._options)

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`."""
        run = await run_team(setting, self.workers, problem, seed, budgets, **self._options)
        return Outcome(
            run.by_budget,
            run.result.workers,
            steps_of(run.result),
            run.result.reply,
            measures_of(run.result) if self.workers > 1 else {},
        )
