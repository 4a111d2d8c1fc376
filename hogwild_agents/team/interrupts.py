"""Interrupts: what the system writes into a worker's stream, and when.

At the beginning of each step, every interrupt of the team is shown what the worker can see, and may
return a text, which is written there for the worker to react to. Any callable will do:

    def remind(sight: Sight) -> str | None:
        return "(Half of the time is over.) " if sight.passes > 1000 else None

It runs on a thread of its own: a slow one makes its session wait, and no other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from hogwild_agents.engine.errors import HogwildError
from hogwild_agents.team.events import Note, Step


class InvalidInterruptError(HogwildError, TypeError):
    """An interrupt is no callable, or returned something else than text or None."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a worker can see at the beginning of a step, and where the session stands.

    Attributes:
        worker: Its name.
        index: Of the step that begins, 2 or more.
        workers: The names of the team.
        problem: The conversation that the team works on, as it was given.
        history: Finished steps of all workers and notes, in order.
        others: Per other worker, the text of its unfinished step as far as this worker sees it.
        passes: Forward passes of thinking so far.
        budget: How many there may be.
        tokens: Tokens drawn by all workers so far.
        since: Of these, the ones since this interrupt last spoke in this session.
    """

    worker: str
    index: int
    workers: tuple[str, ...]
    problem: Any
    history: tuple[Step | Note, ...]
    others: dict[str, str]
    passes: int
    budget: int
    tokens: int
    since: int


Interrupt: TypeAlias = Callable[[Sight], str | None]

QUESTION = "Quick check: am I doing redundant work? (yes/no): "

_YES_NO = re.compile(r"\W*(yes|no)(?=\W)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RedundancyCheck:
    """Asks a worker now and then whether it does what another does or has done.

    The question and the interval are the paper's (Rodionov et al., arXiv 2504.06261, section 3.3).

    Attributes:
        every: Tokens, drawn by all workers together, between two checks.
        question: What is asked.
    """

    every: int = 1024
    question: str = QUESTION

    def __post_init__(self) -> None:
        """Refuses what cannot be asked."""
        if self.every < 1 or not self.question.strip():
            raise InvalidInterruptError(
                f"every={self.every} must be at least 1, and question={self.question!r} a text."
            )

    def __call__(self, sight: Sight) -> str | None:
        """The question, if it is time."""
        return self.question if sight.since >= self.every else None

    def read(self, followed: str) -> bool | None:
        """How a worker answered: True for yes, False for no, None if it is not clear (yet)."""
        found = _YES_NO.match(followed)
        return None if found is None else found[1].lower() == "yes"


def name_of(interrupt: Interrupt) -> str:
    """What an interrupt is called in records."""
    return getattr(interrupt, "__name__", None) or type(interrupt).__name__


def ask(interrupt: Interrupt, sight: Sight) -> Future[Any]:
    """Calls an interrupt on a thread of its own, so that no other session waits for it."""
    answer: Future[Any] = Future()

    def call() -> None:
        try:
            answer.set_result(interrupt(sight))
        except BaseException as error:  # noqa: BLE001  the session that asked ends with it
            answer.set_exception(error)

    threading.Thread(target=call, name=f"hogwild-{name_of(interrupt)}", daemon=True).start()
    return answer


def as_text(interrupt: Interrupt, answer: object) -> str:
    """What an interrupt said, empty for None.

    Raises:
        InvalidInterruptError: It is no text.
    """
    if answer is None:
        return ""
    if not isinstance(answer, str):
        raise InvalidInterruptError(
            f"The interrupt {name_of(interrupt)} returned {type(answer).__name__} "
            f"({answer!r:.80}): return a text, or None to say nothing."
        )
    return answer
