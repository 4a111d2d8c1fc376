"""Ways to answer a problem, all measured alike: one worker, several apart, several together.

Every strategy answers at many budgets in one go. Teams do so by snapshots: the early finisher
answers in passing and leaves the session as it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.measures import measures_of
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import Reached, Setting, Watched, steps_of, watch

VOTING_TEMPERATURE = 0.7
"""For voters of a model that decodes greedily: else all would say the same (Wang et al., arXiv
2203.11171, vote at 0.5 to 0.7)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy came to on a problem.

    Attributes:
        reached: By budget.
        workers: Names of those who wrote.
        steps: As in `Transcript`.
        reply: What was said in the end.
        measures: As in `Record`.
    """

    reached: dict[int, Reached]
    workers: tuple[str, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    reply: str = ""
    measures: dict[str, float] = field(default_factory=dict)


class Strategy(Protocol):
    """A way to answer; `name` tells it from others in a run and in reports."""

    @property
    def name(self) -> str:
        """Such as `vote-4`."""

    def check(self, setting: Setting) -> None:
        """Raises HogwildError if it cannot run on this model; before any work."""

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """Answers a problem within each of some budgets, in ascending order."""


@dataclass(frozen=True, slots=True)
class Hogwild:
    """A team on one cache; of one worker, it is that worker alone.

    Attributes:
        workers: How many.
        layout: What each sees of the others.
        asked: Whether they are asked if their work is redundant.
    """

    workers: int = 2
    layout: str = "combined"
    asked: bool = True

    @property
    def name(self) -> str:
        """`single`, or `hogwild-2` and what is unusual about it."""
        if self.workers == 1:
            return "single"
        layout = "" if self.layout == "combined" else f"-{self.layout}"
        return f"hogwild-{self.workers}{layout}{'' if self.asked else '-unchecked'}"

    @property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {} if self.asked else {"interrupts": []}
        return options if self.workers == 1 else options | {"layout": self.layout}

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        setting.team(self.workers, 0, **self._options)

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`."""
        watched = await watch(setting, self.workers, problem, seed, budgets, **self._options)
        return Outcome(
            watched.reached,
            watched.result.workers,
            steps_of(watched.result),
            watched.result.reply,
            measures_of(watched.result) if self.workers > 1 else {},
        )


@dataclass(frozen=True, slots=True)
class Vote:
    """Workers who know nothing of each other; the answer that most give (self-consistency)."""

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
        voters = await _apart(setting, self.workers, problem, seed, budgets)
        reached = {}
        for budget in budgets:
            at = [voter.reached[budget] for voter in voters]
            votes = Counter(one.answer for one in at if one.answer is not None)
            answer = votes.most_common(1)[0][0] if votes else None  # of equals, the first's
            reached[budget] = _together(at, answer, max(one.passes for one in at))
        return _apart_outcome(voters, reached)


@dataclass(frozen=True, slots=True)
class First:
    """Workers who know nothing of each other; the answer of whoever is done first."""

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
        runners = await _apart(setting, self.workers, problem, seed, budgets)
        reached = {}
        for budget in budgets:
            at = [runner.reached[budget] for runner in runners]
            done = [
                (runner.result.passes, place)
                for place, runner in enumerate(runners)
                if runner.result.finish_reason == "answer" and runner.result.passes <= budget
            ]
            winner = at[min(done)[1]] if done else at[0]
            reached[budget] = _together(at, winner.answer, winner.passes)
        return _apart_outcome(runners, reached)


def strategies_of(
    names: Iterable[str],
    workers: Sequence[int],
    layouts: Sequence[str] = ("combined",),
) -> list[Strategy]:
    """Strategies by name, each for every team size.

    Args:
        names: Of `single`, `vote`, `first`, `skeleton`, `hogwild`, `unchecked` (hogwild without the
            redundancy check).
        workers: Team sizes.
        layouts: Of hogwild.

    Raises:
        EvaluationError: No such name, or one twice.
    """
    from hogwild_agents.evaluation.skeleton import Skeleton  # which needs this file

    teams = [count for count in workers if count > 1]
    makers: dict[str, list[Strategy]] = {
        "single": [Hogwild(1)],
        "vote": [Vote(count) for count in teams],
        "first": [First(count) for count in teams],
        "skeleton": [Skeleton()],
        "hogwild": [Hogwild(count, layout) for count in teams for layout in layouts],
        "unchecked": [Hogwild(count, layout, False) for count in teams for layout in layouts],
    }
    made: list[Strategy] = []
    for name in names:
        if name not in makers:
            raise EvaluationError(
                f"There is no strategy {name!r}: choose of {', '.join(makers)}, or give a runnable "
                "to Chain(...) in Python."
            )
        if not makers[name]:
            raise EvaluationError(f"{name} needs teams of 2 workers or more: give such sizes.")
        made += makers[name]
    if len({strategy.name for strategy in made}) < len(made):
        raise EvaluationError("A strategy is asked for twice: give each name once.")
    return made


async def _apart(
    setting: Setting, workers: int, problem: Problem, seed: int, budgets: Sequence[int]
) -> list[Watched]:
    """Several lone workers at once, each with random numbers of its own."""
    usual = setting.team(1, seed).sampling
    sampling = replace(usual, temperature=VOTING_TEMPERATURE) if usual.greedy else usual
    return await asyncio.gather(
        *(
            watch(setting, 1, problem, 1000 * seed + place, budgets, sampling=sampling)
            for place in range(workers)
        )
    )


def _together(at: Sequence[Reached], answer: str | None, passes: int) -> Reached:
    """What workers apart come to: their tokens add up, their passes run side by side."""
    return Reached(
        answer,
        passes,
        sum(one.tokens for one in at),
        max(one.seconds for one in at),
        sum(one.memory for one in at),
    )


def _apart_outcome(apart: Sequence[Watched], reached: dict[int, Reached]) -> Outcome:
    names = tuple(f"{one.result.workers[0]} {place}" for place, one in enumerate(apart, 1))
    steps = tuple(
        step | {"worker": name}
        for name, one in zip(names, apart, strict=True)
        for step in steps_of(one.result)
    )
    replies = "\n\n".join(one.result.reply for one in apart if one.result.reply)
    return Outcome(reached, names, steps, replies)
