"""Layouts that a user might write."""

from __future__ import annotations

from hogwild_agents.engine import CacheBlock
from hogwild_agents.team import TeamBlocks


def newest_last(blocks: TeamBlocks) -> list[list[CacheBlock]]:
    """Like contiguous, but finished steps are committed."""
    team = range(len(blocks.work))
    return [[*blocks.common, *blocks.others(w), blocks.work[w]] for w in team]


def neighbour(blocks: TeamBlocks) -> tuple[tuple[CacheBlock, ...], ...]:
    """Each worker sees the work of the next one, without any header."""
    size = len(blocks.work)
    return tuple((*blocks.common, blocks.work[(w + 1) % size], blocks.work[w]) for w in range(size))
