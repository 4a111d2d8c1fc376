"""A list that one thread appends to while threads and asyncio tasks read it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Items in order, until the feed is closed. Every reader gets all of them."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._closed = False
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether no more items will come."""
        return self._closed

    def extend(self, items: Sequence[T], *, close: bool = False) -> None:
        """Appends items and wakes the readers; `close` ends the feed. No effect when closed."""
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
        """Blocks this thread until the feed is closed; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout)

    async def until_closed(self) -> None:
        """Suspends this task until the feed is closed."""
        while not self._closed:
            await self._arrival(len(self._items))

    def __iter__(self) -> Iterator[T]:
        """All items; blocks this thread until the feed is closed."""
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
        """All items; suspends this task until the feed is closed."""
        seen = 0
        while True:
            closed = self._closed  # read before the items: once closed, no item is added
            items = self._items[seen:]
            for item in items:
                yield item
            seen += len(items)
            if closed:
                return
            await self._arrival(seen)

    async def _arrival(self, seen: int) -> None:
        """Suspends this task until there are more than `seen` items, or the feed is closed."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def settle() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits
                loop.call_soon_threadsafe(settle)

        with self._changed:
            if self._closed or len(self._items) > seen:
                return
            self._wakers.append(wake)
        await arrived
