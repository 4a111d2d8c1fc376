"""The parts of a team as runnables; each works alone, and in chains with `|`.

Example:
    chain = CollaborationPrompt() | ChatHogwild(prompt=None) | FinalAnswer("number")
    chain.invoke("How many primes are there below 100?")
"""

from hogwild_agents.langchain.errors import NoAnswerError
from hogwild_agents.langchain.runnables.answers import FinalAnswer
from hogwild_agents.langchain.runnables.finishers import EarlyFinisher
from hogwild_agents.langchain.runnables.interrupts import (
    BaseInterrupt,
    Interrupt,
    InterruptRecord,
    RedundancyCheck,
    as_interrupt,
)
from hogwild_agents.langchain.runnables.prompts import CollaborationPrompt

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
