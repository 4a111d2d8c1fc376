"""Every reader of a feed gets every item in order, whenever and wherever it reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from itertools import chain
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_agents.engine.scheduling.feed import Feed
from tests.unit.engine.jobs import WAIT, within


def fill(feed: Feed[int], parts: list[list[int]]) -> None:
    """Everything, and the end."""
    for part in parts:
        feed.extend(part)
    feed.extend([], close=True)


async def read(feed: Feed[int]) -> list[int]:
    """All items, in asyncio."""
    return [item async for item in feed]


PARTS = st.lists(st.lists(st.integers(), max_size=4), max_size=6)


@given(PARTS)
def test_a_late_reader(parts: list[list[int]]) -> None:
    """Gets all that came before, as often as it likes."""
    feed: Feed[int] = Feed()
    fill(feed, parts)
    expected = [*chain(*parts)]
    assert feed.closed
    assert list(feed) == list(feed) == expected
    assert asyncio.run(read(feed)) == expected
    assert feed.wait_closed(0)


@given(PARTS, st.integers(1, 3))
def test_readers_on_threads(parts: list[list[int]], readers: int) -> None:
    """They get the items as they come."""
    feed: Feed[int] = Feed()
    got: list[list[int]] = [[] for _ in range(readers)]
    threads = [
        threading.Thread(target=lambda seen=seen: seen.extend(feed), daemon=True) for seen in got
    ]
    for thread in threads:
        thread.start()
    fill(feed, parts)
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert got == [[*chain(*parts)]] * readers


@given(PARTS, st.integers(1, 3))
def test_readers_in_asyncio(parts: list[list[int]], readers: int) -> None:
    """They get the items as they come, from another thread."""
    feed: Feed[int] = Feed()

    async def main() -> list[list[int]]:
        tasks = [asyncio.create_task(read(feed)) for _ in range(readers)]
        await asyncio.sleep(0)
        threading.Thread(target=fill, args=(feed, parts), daemon=True).start()
        return await asyncio.wait_for(asyncio.gather(*tasks), WAIT)

    assert asyncio.run(main()) == [[*chain(*parts)]] * readers


def test_each_item_is_read_before_the_next_one_comes() -> None:
    """Nobody has to wait for the end."""
    feed: Feed[int] = Feed()
    items = iter(feed)
    for number in range(3):
        feed.extend([number])
        assert within(lambda: next(items)) == number
    feed.extend([], close=True)
    with pytest.raises(StopIteration):
        next(items)


def test_each_item_is_read_before_the_next_one_comes_in_asyncio() -> None:
    """The reader answers every item; the writer waits for the answer."""
    feed: Feed[int] = Feed()
    answers: list[int] = []
    answered = threading.Semaphore(0)

    def write() -> None:
        for number in range(5):
            feed.extend([number])
            assert answered.acquire(timeout=WAIT)
            assert answers == [*range(number + 1)]
        feed.extend([], close=True)

    async def main() -> None:
        async for item in feed:
            answers.append(item)
            answered.release()

    async def both() -> None:
        await asyncio.wait_for(asyncio.gather(main(), asyncio.to_thread(write)), WAIT)

    asyncio.run(both())
    assert answers == [*range(5)]


def test_waiting_for_the_end() -> None:
    """With a time to wait at most, or without one; items alone do not end it."""
    feed: Feed[int] = Feed()
    feed.extend([1, 2])
    assert not feed.closed
    assert not feed.wait_closed(0)
    assert not feed.wait_closed(0.001)

    async def main() -> bool:
        waiter = asyncio.create_task(feed.until_closed())
        for number in range(5):
            await asyncio.sleep(0)
            feed.extend([number])
            await asyncio.sleep(0)
            assert not waiter.done()
        feed.extend([], close=True)
        await asyncio.wait_for(waiter, WAIT)
        await feed.until_closed()
        return feed.wait_closed(None)

    assert asyncio.run(main())


def test_an_item_that_comes_with_the_end() -> None:
    """Is read as well."""
    feed: Feed[int] = Feed()
    feed.extend([1])

    async def main() -> list[int]:
        reader = asyncio.create_task(read(feed))
        await asyncio.sleep(0)
        feed.extend([2], close=True)
        return await asyncio.wait_for(reader, WAIT)

    assert asyncio.run(main()) == [1, 2] == list(feed)


def test_a_reader_that_gives_up() -> None:
    """Cancelling one leaves the others alone; so does a loop that is closed."""
    feed: Feed[int] = Feed()

    async def give_up() -> None:
        reader = asyncio.create_task(read(feed))
        waiter = asyncio.create_task(feed.until_closed())
        await asyncio.sleep(0)
        reader.cancel()
        waiter.cancel()
        await asyncio.gather(reader, waiter, return_exceptions=True)

    async def vanish() -> None:
        await anext(aiter(feed))

    asyncio.run(give_up())
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(vanish())
    loop.call_soon(loop.stop)
    loop.run_forever()
    abandoned.cancel()
    loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
    loop.close()
    feed.extend([1])
    feed.extend([2], close=True)
    assert list(feed) == [1, 2]


def test_loops_on_several_threads() -> None:
    """Each reader is woken in its own loop."""
    feed: Feed[int] = Feed()
    got: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: got.append(asyncio.run(read(feed))), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    fill(feed, [[1], [2, 3], [4]])
    for thread in threads:
        thread.join(WAIT)
    assert got == [[1, 2, 3, 4]] * 3


@pytest.mark.parametrize("reader", ["items", "end"])
def test_a_reader_sleeps_while_nothing_comes(reader: str) -> None:
    """The loop makes no step for it: it does not look again and again."""
    feed: Feed[int] = Feed()
    steps = [0]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(read(feed) if reader == "items" else until(feed))
        for _ in range(3):
            await asyncio.sleep(0)
        call_soon: Callable[..., asyncio.Handle] = loop.call_soon

        def count(*args: object, **options: object) -> asyncio.Handle:
            steps[0] += 1
            return call_soon(*args, **options)

        with mock.patch.object(loop, "call_soon", count):
            for _ in range(10):
                await asyncio.sleep(0)
        feed.extend([], close=True)
        await asyncio.wait_for(task, WAIT)

    async def until(feed: Feed[int]) -> None:
        await feed.until_closed()

    asyncio.run(main())
    assert steps[0] == 10, "one for each step of this test"


def test_an_iterator_of_its_own_for_each_reader() -> None:
    """Two that read alternately do not take items from each other."""
    feed: Feed[int] = Feed()
    feed.extend([1, 2, 3], close=True)
    one, other = iter(feed), iter(feed)
    assert [next(one), next(other), next(one), next(other)] == [1, 1, 2, 2]

    async def main() -> list[int]:
        first: AsyncIterator[int] = aiter(feed)
        second: AsyncIterator[int] = aiter(feed)
        return [await anext(first), await anext(second), await anext(first)]

    assert asyncio.run(main()) == [1, 1, 2]
