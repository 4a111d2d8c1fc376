"""A call while it runs: its session, until that ends or its time is over."""

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
from hogwild_agents.langchain.request import Request
from hogwild_agents.team import Event, Finished, Result

GRACE = 5.0
"""Seconds that a session gets, after its time is over, to return its partial result. It needs one
forward pass."""


class RunningCall:
    """The running session of one call; a context manager that cancels the session on exit.

    Args:
        handle: Of the session.
        timeout: Seconds until the session is cancelled; None for no limit.
        thinking_timeout: Seconds until the workers stop thinking and answer; None for no limit.
    """

    def __init__(
        self,
        handle: Handle[Event, Result],
        timeout: float | None,
        thinking_timeout: float | None = None,
    ) -> None:
        self._handle = handle
        self._timeout = timeout
        self._timed_out = False
        self._timers = [
            threading.Timer(seconds, action)
            for seconds, action in ((thinking_timeout, handle.stop), (timeout, self._time_out))
            if seconds is not None
        ]
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def _time_out(self) -> None:
        self._timed_out = True
        self._handle.cancel()
        try:
            with suppress(HogwildError):
                self._handle.result(GRACE)
        except TimeoutError:
            self._handle.abandon(
                AnswerTimeoutError(
                    f"There was no answer after timeout={self._timeout} s, and the engine does not "
                    "return a partial result: it is in a very long forward pass, or stuck."
                )
            )

    @classmethod
    def start(cls, request: Request, timeout: float | None) -> Self:
        """Submits a session, and waits until it is admitted and its prompt is read.

        Raises:
            ModelError: The session failed before it began to think.
        """
        call = cls(request.submit(), timeout)
        try:
            if isinstance(next(iter(call._handle), None), Finished | None):
                call.result()
        except BaseException:
            call.close()
            raise
        return call

    @classmethod
    async def astart(cls, request: Request, timeout: float | None) -> Self:
        """As `start`, without blocking the event loop."""
        call = cls(request.submit(), timeout)
        try:
            if isinstance(await anext(aiter(call._handle), None), Finished | None):
                await call.aresult()
        except BaseException:
            call.close()
            raise
        return call

    def __enter__(self) -> Self:
        """The call itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels the session if it still runs."""
        self.close()

    def close(self) -> None:
        """Cancels the session if it still runs."""
        for timer in self._timers:
            timer.cancel()
        self._handle.cancel()

    def events(self) -> Iterator[Event]:
        """All events from the first on. Raises as `result` does, before the last event."""
        for event in self._handle:
            if isinstance(event, Finished):
                self.result()
            yield event
        self.result()

    async def aevents(self) -> AsyncIterator[Event]:
        """As `events`, without blocking the event loop."""
        async for event in self._handle:
            if isinstance(event, Finished):
                await self.aresult()
            yield event
        await self.aresult()

    def result(self) -> Result:
        """Waits for the end.

        Raises:
            AnswerTimeoutError: The timeout was over first.
            ModelError: The session failed.
        """
        with as_langchain_errors():
            return self._check(self._handle.result())

    async def aresult(self) -> Result:
        """As `result`, without blocking the event loop."""
        with as_langchain_errors():
            return self._check(await self._handle)

    def _check(self, result: Result) -> Result:
        if result.finish_reason != "cancelled":
            return result
        if self._timed_out:
            raise AnswerTimeoutError(
                f"There was no answer after timeout={self._timeout} s and {result.passes:,} "
                "forward passes, so the session was stopped: raise timeout, or lower budget and "
                "max_tokens. This error's `partial` is the result up to then.",
                partial=result,
            )
        raise SessionFailedError(
            "The session was cancelled, because its engine was closed. Try again. This error's "
            "`partial` is the result up to then.",
            partial=result,
        )
