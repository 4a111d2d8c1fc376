"""Interrupts: texts that the system writes into a worker's stream, and when.

At the beginning of each step, every interrupt of the team gets what the worker can see. It may
return a text, which is written there for the worker to react to. Any callable can be an interrupt:

    def remind(context: InterruptContext) -> str | None:
        return "(Half of the time is over.) " if context.passes > 1000 else None

It runs on its own thread, so a slow interrupt delays only its own session.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeAlias

from hogwild_agents.errors import InvalidInterruptError
from hogwild_agents.team.events import Note, Step


@dataclass(frozen=True, slots=True)
class InterruptContext:
    """What a worker can see at the beginning of a step, and the state of the session.

    Attributes:
        worker: The name of the worker.
        index: Index of the step that begins, 2 or more.
        workers: The names of the team.
        problem: The problem or conversation as the caller gave it.
        history: Finished steps of all workers and notes, in order.
        others: Per other worker, the text of its unfinished step as far as this worker sees it.
        passes: Forward passes of thinking so far.
        budget: The most forward passes of thinking.
        tokens: Tokens drawn by all workers so far.
        since: Tokens of these since this interrupt last spoke in this session.
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


def name_of(interrupt: Interrupt) -> str:
    """The name of an interrupt in records."""
    return getattr(interrupt, "__name__", None) or type(interrupt).__name__


def ask(interrupt: Interrupt, context: InterruptContext) -> Future[Any]:
    """Calls an interrupt on its own thread, so that no other session waits for it."""
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


def choose_interrupts(interrupts: Any) -> tuple[Interrupt, ...]:
    """The interrupts of a team.

    Raises:
        InvalidInterruptError: This is not a list, or one of its items is not a plain callable.
    """
    if not isinstance(interrupts, Sequence) or isinstance(interrupts, str):
        raise InvalidInterruptError(
            f"interrupts={interrupts!r} is not a list: put it into one, such as "
            "[RedundancyCheck()]."
        )
    for interrupt in interrupts:
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
    return tuple(interrupts)


def _asynchronous(interrupt: Interrupt) -> str:
    return (
        f"The interrupt {name_of(interrupt)} is asynchronous: give a plain function. It runs on "
        "its own thread, so it may block, and may call asyncio.run()."
    )


def as_text(interrupt: Interrupt, answer: object) -> str:
    """The text that an interrupt returned, empty for None.

    Raises:
        InvalidInterruptError: It returned something else.
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
