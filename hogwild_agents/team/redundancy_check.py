"""The redundancy check: asks workers whether they repeat others' work, and reads the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hogwild_agents.errors import InvalidInterruptError
from hogwild_agents.team.interrupts import InterruptContext

QUESTION = "Quick check: am I doing redundant work? (yes/no): "

_YES_NO = re.compile(r"[\W_]*(?:yes/no[\W_]+)?(yes|no)(?=[^\w/]|_)", re.IGNORECASE)
"""A worker may repeat the choice of the question before it answers."""


@dataclass(frozen=True, slots=True)
class RedundancyCheck:
    """Asks a worker now and then whether it repeats the work of another.

    The question and the interval are the paper's (Rodionov et al., arXiv 2504.06261, section 3.3).

    Attributes:
        every: Tokens, drawn by all workers together, between two checks.
        question: The text of the question.
    """

    every: int = 1024
    question: str = QUESTION

    def __post_init__(self) -> None:
        """Checks the values."""
        every: Any = self.every
        question: Any = self.question
        if type(every) is not int or every < 1:
            raise InvalidInterruptError(
                f"every={every!r} makes no sense: give a whole number of 1 or more."
            )
        if not isinstance(question, str) or not question.strip():
            raise InvalidInterruptError(
                f"question={question!r} asks nothing: give a text that is not empty."
            )

    def __call__(self, context: InterruptContext) -> str | None:
        """The question if enough tokens have been drawn, else None."""
        return self.question if context.since >= self.every else None

    def read(self, followed: str) -> bool | None:
        """How a worker answered: True for yes, False for no, None if it is not clear (yet)."""
        match = _YES_NO.match(followed)
        return None if match is None else match[1].lower() == "yes"
