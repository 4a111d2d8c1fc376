"""Does a team answer sooner? Data sets, strategies, resumable runs, statistics and reports.

Example:
    from hogwild_agents.evaluation import evaluate, load, strategies_of

    problems = load("pocket", limit=20).problems
    evaluation = evaluate(problems, strategies_of(["single", "hogwild"], [2, 4]), "runs/pocket")
    print(evaluation.report())
"""

from typing import TYPE_CHECKING

from hogwild_agents.evaluation.datasets import load
from hogwild_agents.evaluation.evaluations import Evaluation, aevaluate, evaluate
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.sessions import BudgetResult, Setting
from hogwild_agents.evaluation.strategies import (
    FirstAnswer,
    Hogwild,
    Outcome,
    Strategy,
    Vote,
    strategies_of,
)

if TYPE_CHECKING:
    from hogwild_agents.evaluation.chains import Chain

__all__ = [
    "BudgetResult",
    "Chain",
    "Evaluation",
    "FirstAnswer",
    "Hogwild",
    "Outcome",
    "Problem",
    "Record",
    "Setting",
    "Strategy",
    "Transcript",
    "Vote",
    "aevaluate",
    "evaluate",
    "load",
    "strategies_of",
]


def __getattr__(name: str) -> type["Chain"]:
    """Loads LangChain only if `Chain` is used."""
    if name == "Chain":
        from hogwild_agents.evaluation.chains import Chain

        return Chain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
