"""Interrupts as runnables, and the record of those that wrote something.

A team takes them directly. A link after `|` transforms their text, and is skipped when they write
nothing:

    remind = Interrupt(lambda context: "(Hurry up.) " if context.passes > 1000 else None)
    interrupts = [RedundancyCheck(every=512) | translate, remind]

In a chain that begins with something else all links run. Make its beginning an interrupt first:
`Interrupt(prepare | check) | translate`.
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
from hogwild_agents.team import redundancy_check
from hogwild_agents.team.events import Interruption
from hogwild_agents.team.interrupts import (
    InterruptContext,
    as_text,
    choose_interrupts,
    name_of,
)
from hogwild_agents.team.redundancy_check import QUESTION


class BaseInterrupt(HogwildRunnable):
    """Turns a worker's context into the text to write into its step, or None.

    `interrupt | link` is the same interrupt, whose text `link` transforms; if there is no text,
    `link` is skipped. `interrupt + other` asks both and joins their texts.

    Attributes:
        then: The links that transform the text.
        name: Its name in records and traces.

    Raises:
        InvalidInterruptError: It makes no sense, or returns something else than text.
    """

    then: tuple[Runnable[Any, Any], ...] = ()

    def __init__(
        self, *, then: Sequence[Runnable[Any, Any]] = (), name: str | None = None, **fields: Any
    ) -> None:
        super().__init__(then=tuple(then), name=name, **fields)

    @property
    @abstractmethod
    def first(self) -> Runnable[InterruptContext, Any]:
        """The part that gets the context."""

    @property
    def InputType(self) -> Any:  # noqa: N802
        """The type of the input."""
        return InterruptContext

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """The type of the output."""
        return str | None

    @property
    def __name__(self) -> str:
        """Its name in a team's records."""
        return self.get_name()

    def __call__(self, context: InterruptContext) -> str | None:
        """As `invoke`; a team calls it on a thread, where it may block."""
        return self.invoke(context)

    def read(self, followed: str) -> Any:
        """How a worker answered it, by the first of its parts that can read answers."""
        readers = (getattr(part, "read", None) for part in _parts(self.first) if callable(part))
        return next((read(followed) for read in readers if read is not None), None)

    def invoke(
        self,
        input: InterruptContext,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> str | None:
        """The text; parts that are only asynchronous get an event loop."""
        text: str | None
        if any(map(_only_asynchronous, _parts((self.first, self.then)))):
            text = asyncio.run(self.ainvoke(input, config, **kwargs))
        else:
            text = super().invoke(input, config, **kwargs)
        return text

    def _run(self, context: InterruptContext, /, **options: Any) -> str | None:
        text = self.first.invoke(context, **options)
        for link in self.then:
            text = text if _is_empty(text) else link.invoke(text)
        return as_text(self, text) or None

    async def _arun(self, context: InterruptContext, /, **options: Any) -> str | None:
        text = await self.first.ainvoke(context, **options)
        for link in self.then:
            text = text if _is_empty(text) else await link.ainvoke(text)
        return as_text(self, text) or None

    def __or__(self, other: Any) -> Self:
        """The same interrupt, with `other` as the last link."""
        if isinstance(other, BaseInterrupt):
            raise InvalidInterruptError(
                f"{self.get_name()} | {other.get_name()}: a link after | takes a text, and an "
                "interrupt takes a context. Write + to ask both."
            )
        return self.partial(then=(*self.then, coerce_to_runnable(other)))

    def pipe(self, *others: Any, name: str | None = None) -> Self:
        """As `|`, for several links."""
        piped = self
        for link in others:
            piped |= link
        return piped.partial(name=name) if name else piped

    def __add__(self, other: Any) -> Interrupt:
        """Asks both, and joins their texts."""
        other = as_interrupt(other)
        name = f"{name_of(self)} + {name_of(other)}"
        return Interrupt(RunnableParallel(one=self, other=Interrupt(other)) | _join, name=name)


class Interrupt(BaseInterrupt):
    """Any function or runnable from an `InterruptContext` to a text or None; also a decorator.

    Attributes:
        function: The function, as a runnable. It may be asynchronous.

    Raises:
        InvalidInterruptError: It is neither a function nor a runnable.

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
    """Asks a worker now and then whether its work is redundant.

    Attributes:
        every: Tokens between two checks, counted over all workers.
        question: The question.

    Raises:
        InvalidInterruptError: The interval or the question makes no sense.
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
        redundancy_check.RedundancyCheck(every, question)
        super().__init__(every=every, question=question, then=then, name=name)

    @property
    def first(self) -> Runnable[InterruptContext, Any]:
        """The team's own check."""
        check = redundancy_check.RedundancyCheck(self.every, self.question)
        return RunnableLambda(check, name=name_of(check))


def as_interrupt(value: Any) -> Any:
    """An interrupt that a `Team` can call, from the chat model's option.

    A plain `RedundancyCheck` becomes the team's own, which needs no run of a runnable. Other
    runnables, and asynchronous functions, become an `Interrupt`. Everything else is returned as it
    is.
    """
    if isinstance(value, RedundancyCheck) and not (value.then or value.name):
        return redundancy_check.RedundancyCheck(value.every, value.question)
    if isinstance(value, BaseInterrupt):
        return value
    if isinstance(value, Runnable) or inspect.iscoroutinefunction(value):
        return Interrupt(value)
    return value


class InterruptRecord(HogwildRunnable):
    """Reads from a finished message which interrupts wrote something, in order.

    Attributes:
        interrupt: The name of the interrupts to return; None for all.

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
        """The type of the input."""
        return AIMessage

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """The type of the output."""
        return list[Interruption]

    def _run(self, message: Any, /, **_: Any) -> list[Interruption]:
        record = getattr(message, "response_metadata", {}).get("interruptions")
        if record is None:
            raise InvalidMessageError(
                f"{message!r:.80} holds no record of interrupts: give a message of ChatHogwild."
            )
        interruptions = [Interruption(**fields) for fields in record]
        return [entry for entry in interruptions if self.interrupt in (None, entry.name)]


def _is_empty(text: Any) -> bool:
    return text is None or text == ""


def _join(texts: Mapping[str, str | None]) -> str | None:
    return "".join(filter(None, texts.values())) or None


def _parts(whole: Any) -> list[Any]:
    """A runnable and all runnables inside it."""
    parts: dict[int, Any] = {}
    queue = [whole]
    while queue:
        part = queue.pop(0)
        if id(part) in parts:
            continue
        parts[id(part)] = part
        match part:
            case Mapping():
                queue += part.values()
            case list() | tuple():
                queue += part
            case Runnable():
                queue += vars(part).values()
    return list(parts.values())


def _only_asynchronous(part: Any) -> bool:
    return isinstance(part, RunnableLambda) and not hasattr(part, "func")
