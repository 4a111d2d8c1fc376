"""The pieces of a team's work as runnables: each stands alone, and goes with `|`.

Example:
    chain = CollaborationPrompt() | ChatHogwild(prompt=None) | FinalAnswer("number")
    chain.invoke("How many primes are there below 100?")
"""

from hogwild_agents.runnables.answers import FinalAnswer, NoAnswerError
from hogwild_agents.runnables.finishers import EarlyFinisher
from hogwild_agents.runnables.interrupts import (
    BaseInterrupt,
    Interrupt,
    InterruptRecord,
    RedundancyCheck,
    as_interrupt,
)
from hogwild_agents.runnables.prompts import CollaborationPrompt

__all__ = [
    "BaseInterrupt",
    "CollaborationPrompt",
    "EarlyFinisher",
    "FinalAnswer",
    "Interrupt",
    "InterruptRecord",
    "NoAnswerError",
    "RedundancyCheck",
    "as_interrupt",
]
