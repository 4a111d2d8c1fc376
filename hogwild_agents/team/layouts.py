"""Layouts: rules that give every worker its view.

A layout is a function from a team's blocks to one view per worker, and nothing else:

    contiguous   prompt · others' work · own work              (nothing is committed)
    interleaved  prompt · history · own work                   (others are visible once committed)
    combined     prompt · history · header · others' work · header · own work   (the default)

These are the three of the paper (Rodionov et al., arXiv 2504.06261, section 3.2). Write your own:

    def newest_last(blocks: TeamBlocks) -> list[list[CacheBlock]]:
        team = range(len(blocks.work))
        return [[*blocks.common, *blocks.others(w), blocks.work[w]] for w in team]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import InvalidLayoutError


@dataclass(frozen=True, slots=True)
class TeamBlocks:
    """The blocks that a layout arranges.

    Attributes:
        common: The prompt and the history; several blocks while steps are being committed.
        others_header: The header before the others' unfinished steps.
        own_header: The header before the worker's own unfinished step.
        pauses: Per worker, the mark that its unfinished step breaks off here.
        work: Per worker, its unfinished step; or all of its text, if nothing is committed.
    """

    common: tuple[CacheBlock, ...]
    others_header: CacheBlock
    own_header: CacheBlock
    pauses: tuple[CacheBlock, ...]
    work: tuple[CacheBlock, ...]

    def others(self, worker: int) -> Iterator[CacheBlock]:
        """The work of all workers but one, each followed by its pause."""
        for other, (work, pause) in enumerate(zip(self.work, self.pauses, strict=True)):
            if other != worker:
                yield work
                yield pause


Views: TypeAlias = Sequence[Sequence[CacheBlock]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A named rule.

    Attributes:
        name: The name that users give.
        views: From blocks to one view per worker. A worker writes to the last block of its view,
            which must be its own work.
        commits: Whether a finished step moves to the end of the history.
    """

    name: str
    views: Callable[[TeamBlocks], Views]
    commits: bool = True

    def arrange(self, blocks: TeamBlocks) -> Views:
        """The views, checked.

        Raises:
            InvalidLayoutError: The rule fails, does not give one view per worker, or gives a view
                that does not end with the worker's own work, or that holds a foreign block or one
                block twice.
        """
        try:
            views = self.views(blocks)
        except Exception as error:  # a layout may be a user's code: it may raise anything
            raise InvalidLayoutError(
                f"The layout {self.name!r} raised {type(error).__name__} for {len(blocks.work)} "
                f"workers: {error}. Correct it, or use one of {', '.join(LAYOUTS)}."
            ) from error
        if not _is_list(views) or len(views) != len(blocks.work):
            raise InvalidLayoutError(
                f"The layout {self.name!r} gives {views!r:.80} for {len(blocks.work)} workers: it "
                "must give a list with one view for each."
            )
        headers = (blocks.others_header, blocks.own_header)
        team_ids = {*map(id, (*blocks.common, *headers, *blocks.pauses, *blocks.work))}
        for worker, (view, own) in enumerate(zip(views, blocks.work, strict=True)):
            if not _is_list(view) or not view or view[-1] is not own:
                raise InvalidLayoutError(
                    f"In the layout {self.name!r} the view of worker {worker} does not end with "
                    "its own work, where it writes: put blocks.work[worker] last."
                )
            view_ids = {*map(id, view)}
            if not team_ids.issuperset(view_ids) or len(view_ids) < len(view):
                raise InvalidLayoutError(
                    f"In the layout {self.name!r} the view of worker {worker} holds a block twice "
                    "or one that is not of this team: arrange the blocks of `TeamBlocks`, each "
                    "at most once."
                )
        return views


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence)


def _contiguous(blocks: TeamBlocks) -> Views:
    return [[*blocks.common, *blocks.others(w), own] for w, own in enumerate(blocks.work)]


def _interleaved(blocks: TeamBlocks) -> Views:
    return [[*blocks.common, own] for own in blocks.work]


def _combined(blocks: TeamBlocks) -> Views:
    return [
        [*blocks.common, blocks.others_header, *blocks.others(w), blocks.own_header, own]
        for w, own in enumerate(blocks.work)
    ]


CONTIGUOUS = Layout("contiguous", _contiguous, commits=False)
INTERLEAVED = Layout("interleaved", _interleaved)
COMBINED = Layout("combined", _combined)
SOLO = Layout("solo", _interleaved, commits=False)
"""The layout of a single worker: the prompt and its text."""

LAYOUTS = {layout.name: layout for layout in (CONTIGUOUS, INTERLEAVED, COMBINED)}


def choose_layout(spec: str | Layout | Callable[[TeamBlocks], Views], workers: int) -> Layout:
    """The layout of that name, or one made of a function (which commits finished steps).

    It is tried on empty blocks, with and without steps that are being committed. A single worker
    always has the layout `solo`.

    Raises:
        InvalidLayoutError: There is no such layout, or its views make no sense.
    """
    if isinstance(spec, Layout):
        layout = spec
    elif isinstance(spec, str) and spec in LAYOUTS:
        layout = LAYOUTS[spec]
    elif callable(spec):
        layout = Layout(getattr(spec, "__name__", type(spec).__name__), spec)
    else:
        raise InvalidLayoutError(
            f"Unknown layout {spec!r}: use {', '.join(LAYOUTS)}, or a function from TeamBlocks to "
            "views."
        )
    if workers == 1:
        return SOLO
    for uncommitted in (0, workers):
        layout.arrange(_empty_blocks(workers, uncommitted))
    return layout


def _empty_blocks(workers: int, uncommitted: int) -> TeamBlocks:
    """Blocks of no model, for a team with this many steps that are being committed."""

    def new_blocks(count: int) -> tuple[CacheBlock, ...]:
        return tuple(CacheBlock(cast("CachePool", None)) for _ in range(count))

    others_header, own_header = new_blocks(2)
    return TeamBlocks(
        new_blocks(1 + uncommitted),
        others_header,
        own_header,
        pauses=new_blocks(workers),
        work=new_blocks(workers),
    )
