"""A list that one thread appends to, and that threads and asyncio tasks read as it grows."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Items in order, until it is closed. Every reader gets all of them, from the first one on."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._closed = False
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def extend(self, items: Sequence[T], *, close: bool = False) -> None:
        """Appends items and wakes the readers, with `close` for the last time; nothing later."""
        with self._changed:
            if self._closed:
                return
            self._items.extend(items)
            self._closed = close
            self._changed.notify_all()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def wait_closed(self, timeout: float | None) -> bool:
        """Blocks this thread until the feed is closed; False if `timeout` seconds passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout)

    async def until_closed(self) -> None:
        """Suspends this task until the feed is closed."""
        while not self._closed:
            await self._arrival(len(self._items))

    def __iter__(self) -> Iterator[T]:
        """All items, blocking this thread while more are to come."""
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._items) > seen)  # noqa: B023
                items = self._items[seen:]
            if not items:
                return
            yield from items
            seen += len(items)

    async def __aiter__(self) -> AsyncIterator[T]:
        """All items, suspending this task while more are to come."""
        seen = 0
        while True:
            closed = self._closed  # read before the items are, for nothing comes after it
            items = self._items[seen:]
            for item in items:
                yield item
            seen += len(items)
            if closed:
                return
            await self._arrival(seen)

    async def _arrival(self, seen: int) -> None:
        """Suspends until there are more than `seen` items, or the feed is closed."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def settle() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        with self._changed:
            if self._closed or len(self._items) > seen:
                return
            self._wakers.append(wake)
        await arrived
