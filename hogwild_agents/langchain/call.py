"""Runs: a session that answers one call, until its end or until its time is over."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Self

from hogwild_agents.engine import Handle
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import (
    AnswerTimeoutError,
    SessionFailedError,
    as_langchain_errors,
)
from hogwild_agents.langchain.responses import Shape
from hogwild_agents.team import Event, Finished, Result

GRACE = 5.0
"""Seconds for a session whose time is over to tell what it had reached; it takes one pass."""


class Run:
    """A session under way; a context manager that cancels it on the way out.

    Args:
        handle: Of the session.
        timeout: Seconds that it may take, or None.
        shape: How what comes of it is to look as a message.
        thinking: Seconds after which it stops thinking and answers, or None.
    """

    def __init__(
        self,
        handle: Handle[Event, Result],
        timeout: float | None,
        shape: Shape,
        thinking: float | None = None,
    ) -> None:
        self.shape = shape
        self._handle = handle
        self._timeout = timeout
        self._late = False
        self._timers = [
            threading.Timer(seconds, action)
            for seconds, action in ((thinking, handle.stop), (timeout, self._end))
            if seconds is not None
        ]
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def _end(self) -> None:
        self._late = True
        self._handle.cancel()
        try:
            with suppress(HogwildError):
                self._handle.result(GRACE)
        except TimeoutError:
            self._handle.abandon(
                AnswerTimeoutError(
                    f"There was no answer after timeout={self._timeout} s, and the engine does not "
                    "say what it had reached: it is in a very long forward pass, or stuck."
                )
            )

    def __enter__(self) -> Self:
        """The run; it is over at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels the session if it still runs."""
        for timer in self._timers:
            timer.cancel()
        self._handle.cancel()

    def begin(self) -> Self:
        """Waits until the session is admitted and its prompt read.

        Raises:
            ModelError: It failed before.
        """
        try:
            if isinstance(next(iter(self._handle), None), Finished | None):
                self.result()
        except BaseException:
            self.__exit__()
            raise
        return self

    async def abegin(self) -> Self:
        """As `begin`."""
        try:
            if isinstance(await anext(aiter(self._handle), None), Finished | None):
                await self.aresult()
        except BaseException:
            self.__exit__()
            raise
        return self

    def events(self) -> Iterator[Event]:
        """What happens, from the beginning on; raises as `result` does, before the last event."""
        for event in self._handle:
            if isinstance(event, Finished):
                self.result()
            yield event
        self.result()

    async def aevents(self) -> AsyncIterator[Event]:
        """As `events`."""
        async for event in self._handle:
            if isinstance(event, Finished):
                await self.aresult()
            yield event
        await self.aresult()

    def result(self) -> Result:
        """Waits for the end.

        Raises:
            AnswerTimeoutError: The deadline came first.
            ModelError: The session failed.
        """
        with as_langchain_errors():
            return self._checked(self._handle.result())

    async def aresult(self) -> Result:
        """As `result`, without blocking the event loop."""
        with as_langchain_errors():
            return self._checked(await self._handle)

    def _checked(self, result: Result) -> Result:
        if result.finish_reason != "cancelled":
            return result
        error: AnswerTimeoutError | SessionFailedError
        if self._late:
            error = AnswerTimeoutError(
                f"There was no answer after timeout={self._timeout} s and {result.passes:,} "
                "forward passes, so the session was stopped: raise timeout, or lower budget and "
                "max_tokens. What it had reached is in this error's `partial`."
            )
        else:
            error = SessionFailedError(
                "The session was cancelled: its engine was closed while it worked. Try again. What "
                "it had reached is in this error's `partial`."
            )
        error.partial = result
        raise error
