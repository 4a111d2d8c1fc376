"""Runs: a session that answers one call of a chat model, until its end or its deadline."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Self

from hogwild_agents.engine import Handle
from hogwild_agents.errors import AnswerTimeoutError, EngineFailedError, as_langchain_errors
from hogwild_agents.replies import Shape
from hogwild_agents.team import Event, Finished, Result


class Run:
    """A session under way; a context manager that cancels it on the way out.

    Args:
        handle: Of the session.
        timeout: Seconds that it may take, or None.
        shape: How what comes of it is to look as a message.
    """

    def __init__(self, handle: Handle[Event, Result], timeout: float | None, shape: Shape) -> None:
        self.shape = shape
        self._handle = handle
        self._timeout = timeout
        self._late = False
        self._timer: threading.Timer | None = None
        if timeout is not None:
            self._timer = threading.Timer(timeout, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        self._late = True
        self._handle.cancel()

    def __enter__(self) -> Self:
        """The run; it is over at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels the session if it still runs."""
        if self._timer is not None:
            self._timer.cancel()
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

    async def aevents(self) -> AsyncIterator[Event]:
        """As `events`."""
        async for event in self._handle:
            if isinstance(event, Finished):
                await self.aresult()
            yield event

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
        error: AnswerTimeoutError | EngineFailedError
        if self._late:
            error = AnswerTimeoutError(
                f"There was no answer after timeout={self._timeout} s and {result.passes:,} "
                "forward passes, so the session was stopped: raise timeout, or lower budget and "
                "max_tokens. What it had reached is in this error's `partial`."
            )
        else:
            error = EngineFailedError(
                "The session was cancelled: its engine was closed while it worked. Try again. What "
                "it had reached is in this error's `partial`."
            )
        error.partial = result
        raise error
