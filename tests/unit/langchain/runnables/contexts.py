"""What a worker sees at some moment, and interrupts and functions of our own."""

from __future__ import annotations

import asyncio
from typing import Any

from hogwild_agents.team import InterruptContext


def context(since: int = 2000, passes: int = 900) -> InterruptContext:
    """What a worker sees at some moment."""
    return InterruptContext(
        "Bob", 3, ("Alice", "Bob"), "2 + 2?", (), {"Alice": ""}, passes, 1000, 2000, since
    )


def half_time(seen: InterruptContext) -> str | None:
    """An interrupt of our own."""
    return "(Half of the time is over.) " if seen.passes > seen.budget // 2 else None


def shout(text: str) -> str:
    """What a text may go through."""
    return text.upper()


async def shout_later(text: str) -> str:
    """The same, and only asynchronous."""
    await asyncio.sleep(0.001)
    return text.upper()


def explode(_: Any) -> str:
    """Something that must not be called."""
    raise AssertionError("it was called")
