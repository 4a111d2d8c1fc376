"""Ways to answer a problem, all measured alike: one worker, independent workers, a team.

A strategy answers at all budgets in one run. Teams use snapshots: the early finisher answers from a
fork of the cache and leaves the session as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hogwild_agents.errors import EvaluationError
from hogwild_agents.evaluation.strategies.base import Outcome, Strategy
from hogwild_agents.evaluation.strategies.hogwild import Hogwild
from hogwild_agents.evaluation.strategies.independent import FirstAnswer, Vote
from hogwild_agents.evaluation.strategies.skeleton import SkeletonOfThought

__all__ = [
    "FirstAnswer",
    "Hogwild",
    "Outcome",
    "SkeletonOfThought",
    "Strategy",
    "Vote",
    "strategies_of",
]


def strategies_of(
    names: Iterable[str],
    workers: Sequence[int],
    layouts: Sequence[str] = ("combined",),
) -> list[Strategy]:
    """Makes strategies by name, each for every team size.

    Args:
        names: `single`, `vote`, `first`, `skeleton`, `hogwild`, `unchecked` (hogwild without the
            redundancy check).
        workers: Team sizes.
        layouts: Layouts of hogwild.

    Raises:
        EvaluationError: A name is unknown or occurs twice.
    """
    sizes = [count for count in workers if count > 1]
    by_name: dict[str, list[Strategy]] = {
        "single": [Hogwild(1)],
        "vote": [Vote(count) for count in sizes],
        "first": [FirstAnswer(count) for count in sizes],
        "skeleton": [SkeletonOfThought()],
        "hogwild": [Hogwild(count, layout) for count in sizes for layout in layouts],
        "unchecked": [Hogwild(count, layout, False) for count in sizes for layout in layouts],
    }
    strategies: list[Strategy] = []
    for name in names:
        if name not in by_name:
            raise EvaluationError(
                f"There is no strategy {name!r}: choose from {', '.join(by_name)}, or wrap a "
                "runnable in Chain(...) in Python."
            )
        if not by_name[name]:
            raise EvaluationError(f"{name} needs a team size of 2 or more.")
        strategies += by_name[name]
    if len({strategy.name for strategy in strategies}) < len(strategies):
        raise EvaluationError("A strategy occurs twice: give each name and size once.")
    return strategies
