"""Interrupts: what the system writes into a worker's stream, and when.

At the beginning of each step, every interrupt of the team is shown what the worker can see, and may
return a text, which is written there for the worker to react to. Any callable will do:

    def remind(context: InterruptContext) -> str | None:
        return "(Half of the time is over.) " if context.passes > 1000 else None

It runs on a thread of its own: a slow one makes its session wait, and no other.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeAlias

from hogwild_agents.errors import InvalidInterruptError
from hogwild_agents.team.events import Note, Step


@dataclass(frozen=True, slots=True)
class InterruptContext:
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


Interrupt: TypeAlias = Callable[[InterruptContext], str | None]

QUESTION = "Quick check: am I doing redundant work? (yes/no): "

_YES_NO = re.compile(r"[\W_]*(?:yes/no[\W_]+)?(yes|no)(?=[^\w/]|_)", re.IGNORECASE)
"""A worker may repeat what the question leaves it to choose from."""


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
        """The question, if it is time."""
        return self.question if context.since >= self.every else None

    def read(self, followed: str) -> bool | None:
        """How a worker answered: True for yes, False for no, None if it is not clear (yet)."""
        found = _YES_NO.match(followed)
        return None if found is None else found[1].lower() == "yes"


def name_of(interrupt: Interrupt) -> str:
    """What an interrupt is called in records."""
    return getattr(interrupt, "__name__", None) or type(interrupt).__name__


def ask(interrupt: Interrupt, context: InterruptContext) -> Future[Any]:
    """Calls an interrupt on a thread of its own, so that no other session waits for it."""
    answer: Future[Any] = Future()

    def call() -> None:
        settle: Callable[[Any], None] = answer.set_result
        try:
            outcome: Any = interrupt(context)
        except BaseException as error:  # noqa: BLE001  the session that asked ends with it
            error.add_note(f"raised by the interrupt {name_of(interrupt)}")
            settle, outcome = answer.set_exception, error
        with contextlib.suppress(InvalidStateError):  # the session has gone on without it
            settle(outcome)

    threading.Thread(target=call, name=f"hogwild-{name_of(interrupt)}", daemon=True).start()
    return answer


def choose_interrupts(given: Any) -> tuple[Interrupt, ...]:
    """The interrupts of a team.

    Raises:
        InvalidInterruptError: They are no list, or one of them is no plain function.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidInterruptError(
            f"interrupts={given!r} is no list: put it into one, such as [RedundancyCheck()]."
        )
    for interrupt in given:
        if not callable(interrupt):
            raise InvalidInterruptError(
                f"The interrupt {interrupt!r} is not callable: give a function from an "
                "InterruptContext to a text or None, such as RedundancyCheck()."
            )
        if inspect.isclass(interrupt):
            raise InvalidInterruptError(
                f"The interrupt {interrupt.__name__} is a class: call it, as in "
                f"{interrupt.__name__}()."
            )
        if any(map(inspect.iscoroutinefunction, (interrupt, type(interrupt).__call__))):
            raise InvalidInterruptError(_asynchronous(interrupt))
    return tuple(given)


def _asynchronous(interrupt: Interrupt) -> str:
    return (
        f"The interrupt {name_of(interrupt)} is asynchronous: give a plain function. It runs on a "
        "thread of its own, so it may block, and may call asyncio.run()."
    )


def as_text(interrupt: Interrupt, answer: object) -> str:
    """What an interrupt said, empty for None.

    Raises:
        InvalidInterruptError: It is no text.
    """
    if answer is None:
        return ""
    if inspect.iscoroutine(answer):
        answer.close()
        raise InvalidInterruptError(_asynchronous(interrupt))
    if not isinstance(answer, str):
        raise InvalidInterruptError(
            f"The interrupt {name_of(interrupt)} returned {type(answer).__name__} "
            f"({answer!r:.80}): return a text, or None to say nothing."
        )
    return answer
