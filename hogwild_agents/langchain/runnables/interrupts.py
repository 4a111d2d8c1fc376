"""Interrupts as runnables, and the record of those that spoke.

A team takes them as they are. What comes after `|` turns their text into another one, and is not
asked when they say nothing:

    remind = Interrupt(lambda context: "(Hurry up.) " if context.passes > 1000 else None)
    interrupts = [RedundancyCheck(every=512) | translate, remind]

A chain that begins with something else is a plain one, whose links all run. Make it an interrupt
before it goes on: `Interrupt(prepare | check) | translate`.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.runnables.base import coerce_to_runnable

from hogwild_agents.errors import InvalidInterruptError, InvalidMessageError
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.team import interrupts
from hogwild_agents.team.events import Interruption
from hogwild_agents.team.interrupts import (
    QUESTION,
    InterruptContext,
    as_text,
    choose_interrupts,
    name_of,
)


class BaseInterrupt(HogwildRunnable):
    """From what a worker can see to what is written into its step, or None.

    `interrupt | other` is the same interrupt, whose text goes on through `other`; where it says
    nothing, `other` is not asked. `one + other` asks both and joins what they say.

    Attributes:
        then: What its text goes through.
        name: What it is called in records and traces.

    Raises:
        InvalidInterruptError: It makes no sense, or says something else than text.
    """

    then: tuple[Runnable[Any, Any], ...] = ()

    def __init__(
        self, *, then: Sequence[Runnable[Any, Any]] = (), name: str | None = None, **fields: Any
    ) -> None:
        super().__init__(then=tuple(then), name=name, **fields)

    @property
    @abstractmethod
    def first(self) -> Runnable[InterruptContext, Any]:
        """What is shown the context."""

    @property
    def InputType(self) -> Any:  # noqa: N802
        """What it takes."""
        return InterruptContext

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        return str | None

    @property
    def __name__(self) -> str:
        """What it is called in the records of a team."""
        return self.get_name()

    def __call__(self, context: InterruptContext) -> str | None:
        """As `invoke`: teams call interrupts, on threads where these may block."""
        return self.invoke(context)

    def read(self, followed: str) -> Any:
        """How a worker answered it, as the first of its parts understands that can read answers."""
        readers = (getattr(part, "read", None) for part in _parts(self.first) if callable(part))
        return next((read(followed) for read in readers if read is not None), None)

    def invoke(
        self,
        input: InterruptContext,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> str | None:
        """What it says; parts that are only asynchronous get an event loop for it."""
        said: str | None
        if any(map(_only_asynchronous, _parts((self.first, self.then)))):
            said = asyncio.run(self.ainvoke(input, config, **kwargs))
        else:
            said = super().invoke(input, config, **kwargs)
        return said

    def _run(self, given: InterruptContext, **options: Any) -> str | None:
        said = self.first.invoke(given, **options)
        for step in self.then:
            said = said if _is_nothing(said) else step.invoke(said)
        return as_text(self, said) or None

    async def _arun(self, given: InterruptContext, **options: Any) -> str | None:
        said = await self.first.ainvoke(given, **options)
        for step in self.then:
            said = said if _is_nothing(said) else await step.ainvoke(said)
        return as_text(self, said) or None

    def __or__(self, other: Any) -> Self:
        """The same, with `other` for its text to go through."""
        if isinstance(other, BaseInterrupt):
            raise InvalidInterruptError(
                f"{self.get_name()} | {other.get_name()}: after | comes what takes a text, and an "
                "interrupt takes a context. Write + to ask both."
            )
        return self.partial(then=(*self.then, coerce_to_runnable(other)))

    def pipe(self, *others: Any, name: str | None = None) -> Self:
        """As `|`, once for each."""
        piped = self
        for other in others:
            piped |= other
        return piped.partial(name=name) if name else piped

    def __add__(self, other: Any) -> Interrupt:
        """Asks both, and joins what they say."""
        other = as_interrupt(other)
        name = f"{name_of(self)} + {name_of(other)}"
        return Interrupt(RunnableParallel(one=self, other=Interrupt(other)) | _join, name=name)


class Interrupt(BaseInterrupt):
    """Any function or runnable from an `InterruptContext` to a text or None; also a decorator.

    Attributes:
        function: That, as a runnable. It may be asynchronous.

    Raises:
        InvalidInterruptError: It is nothing of the kind.

    Example:
        @Interrupt
        def half_time(context: InterruptContext) -> str | None:
            return "(Half of the time is over.) " if context.passes > context.budget // 2 else None
    """

    function: Runnable[Any, Any]

    def __init__(
        self,
        function: Callable[[InterruptContext], Any] | Runnable[Any, Any],
        *,
        then: Sequence[Runnable[Any, Any]] = (),
        name: str | None = None,
    ) -> None:
        if isinstance(function, Runnable):
            name = name or function.get_name()
        else:
            if not inspect.iscoroutinefunction(function):
                choose_interrupts([function])
            name = name or name_of(function)
            function = coerce_to_runnable(function)
        super().__init__(function=function, then=then, name=name)

    @property
    def first(self) -> Runnable[InterruptContext, Any]:
        """The function."""
        return self.function


class RedundancyCheck(BaseInterrupt):
    """Asks a worker now and then whether it does what another does or has done.

    Attributes:
        every: Tokens, drawn by all workers together, between two checks.
        question: What is asked.

    Raises:
        InvalidInterruptError: Such a check cannot be asked.
    """

    every: int = 1024
    question: str = QUESTION

    def __init__(
        self,
        every: int = 1024,
        question: str = QUESTION,
        *,
        then: Sequence[Runnable[Any, Any]] = (),
        name: str | None = None,
    ) -> None:
        interrupts.RedundancyCheck(every, question)
        super().__init__(every=every, question=question, then=then, name=name)

    @property
    def first(self) -> Runnable[InterruptContext, Any]:
        """The team's own check."""
        check = interrupts.RedundancyCheck(self.every, self.question)
        return RunnableLambda(check, name=name_of(check))


def as_interrupt(given: Any) -> Any:
    """What a `Team` can call, of whatever may be given as an interrupt.

    A plain `RedundancyCheck` becomes the team's own, which costs nothing to ask; other runnables,
    and asynchronous functions, become an `Interrupt`; all else stays as it is.
    """
    if isinstance(given, RedundancyCheck) and not (given.then or given.name):
        return interrupts.RedundancyCheck(given.every, given.question)
    if isinstance(given, BaseInterrupt):
        return given
    if isinstance(given, Runnable) or inspect.iscoroutinefunction(given):
        return Interrupt(given)
    return given


class InterruptRecord(HogwildRunnable):
    """From a finished message to the interrupts that spoke, in order.

    Attributes:
        interrupt: The name of those that are wanted; None for all.

    Raises:
        InvalidMessageError: The message holds no record.

    Example:
        checks = (model | InterruptRecord("RedundancyCheck")).invoke(problem)
        overlap = sum(check.answer is True for check in checks)
    """

    interrupt: str | None = None

    def __init__(self, interrupt: str | None = None, *, name: str | None = None) -> None:
        super().__init__(interrupt=interrupt, name=name)

    @property
    def InputType(self) -> Any:  # noqa: N802
        """What it takes."""
        return AIMessage

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        return list[Interruption]

    def _run(self, given: Any, **_: Any) -> list[Interruption]:
        record = getattr(given, "response_metadata", {}).get("interruptions")
        if record is None:
            raise InvalidMessageError(
                f"{given!r:.80} holds no record of interrupts: give a message of ChatHogwild's."
            )
        spoken = [Interruption(**fields) for fields in record]
        return [one for one in spoken if self.interrupt in (None, one.name)]


def _is_nothing(said: Any) -> bool:
    return said is None or said == ""


def _join(said: Mapping[str, str | None]) -> str | None:
    return "".join(filter(None, said.values())) or None


def _parts(whole: Any) -> list[Any]:
    """All that a runnable is made of, itself first."""
    parts: dict[int, Any] = {}
    waiting = [whole]
    while waiting:
        part = waiting.pop(0)
        if id(part) in parts:
            continue
        parts[id(part)] = part
        match part:
            case Mapping():
                waiting += part.values()
            case list() | tuple():
                waiting += part
            case Runnable():
                waiting += vars(part).values()
    return list(parts.values())


def _only_asynchronous(part: Any) -> bool:
    return isinstance(part, RunnableLambda) and not hasattr(part, "func")
