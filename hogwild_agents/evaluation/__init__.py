"""Does a team answer sooner? Data sets, strategies, runs that resume, statistics and reports.

Example:
    from hogwild_agents.evaluation import evaluate, load, strategies_of

    problems = load("pocket", limit=20).problems
    done = evaluate(problems, strategies_of(["single", "hogwild"], [2, 4]), "runs/pocket")
    print(done.report())
"""

from hogwild_agents.evaluation.chains import Chain
from hogwild_agents.evaluation.datasets import load
from hogwild_agents.evaluation.evaluations import Evaluation, aevaluate, evaluate
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.sessions import Reached, Setting
from hogwild_agents.evaluation.strategies import (
    First,
    Hogwild,
    Outcome,
    Strategy,
    Vote,
    strategies_of,
)

__all__ = [
    "Chain",
    "Evaluation",
    "First",
    "Hogwild",
    "Outcome",
    "Problem",
    "Reached",
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
