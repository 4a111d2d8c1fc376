"""The views of workers: the three layouts, and layouts of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from hogwild_agents.engine import CacheBlock
from hogwild_agents.errors import HogwildError, InvalidLayoutError, SessionFailedError
from hogwild_agents.names import MAX_WORKERS
from hogwild_agents.team import Layout, Team, TeamBlocks
from hogwild_agents.team.layouts import LAYOUTS, SOLO, Views, choose_layout
from tests.unit.team.scripted import tokenizer
from tests.unit.team.voices import WAIT, hold, make, model, voices

SIZES = range(2, MAX_WORKERS + 1)

every_size = pytest.mark.parametrize("workers", SIZES)
every_layout = pytest.mark.parametrize("name", LAYOUTS)


def some_blocks(workers: int, closing: int = 0) -> tuple[TeamBlocks, dict[int, str]]:
    """The blocks of a team with this many uncommitted steps, and their names."""
    names = ["prompt", *(f"step {n}" for n in range(closing)), "others:", "own:"]
    names += [f"pause {w}" for w in range(workers)] + [f"work {w}" for w in range(workers)]
    blocks = [CacheBlock(cast("Any", None)) for _ in names]
    common, rest = tuple(blocks[: 1 + closing]), blocks[1 + closing :]
    pauses, work = tuple(rest[2 : 2 + workers]), tuple(rest[2 + workers :])
    team = TeamBlocks(common, rest[0], rest[1], pauses, work)
    return team, {id(block): name for block, name in zip(blocks, names, strict=True)}


def named(views: Views, names: dict[int, str]) -> list[list[str]]:
    return [[names[id(block)] for block in view] for view in views]


def as_defined(name: str, worker: int, workers: int, closing: int) -> list[str]:
    """A view as the design defines it, block by block."""
    common = ["prompt", *(f"step {n}" for n in range(closing))]
    others = [part for w in range(workers) if w != worker for part in (f"work {w}", f"pause {w}")]
    own = f"work {worker}"
    return {
        "contiguous": [*common, *others, own],
        "interleaved": [*common, own],
        "combined": [*common, "others:", *others, "own:", own],
    }[name]


@every_layout
@every_size
def test_layouts_are_as_defined(name: str, workers: int) -> None:
    """For every size of a team, and while any number of steps are being committed."""
    for closing in range(workers + 1):
        blocks, names = some_blocks(workers, closing)
        views = named(LAYOUTS[name].arrange(blocks), names)
        assert views == [as_defined(name, w, workers, closing) for w in range(workers)]


def test_what_is_committed() -> None:
    """Finished steps join the history, except in the contiguous layout."""
    assert {name: layout.commits for name, layout in LAYOUTS.items()} == {
        "contiguous": False,
        "interleaved": True,
        "combined": True,
    }


@every_layout
def test_a_name_chooses_a_layout(name: str) -> None:
    """A single worker always has the layout `solo`."""
    assert choose_layout(name, 2) is LAYOUTS[name]
    assert choose_layout(name, 1) is SOLO
    blocks, names = some_blocks(1)
    assert named(SOLO.arrange(blocks), names) == [["prompt", "work 0"]]


# In a session.


def watched(layout: Layout) -> tuple[Layout, list[list[list[str]]]]:
    """A layout that records its views, by the names of blocks."""
    notes: list[list[list[str]]] = []

    def views(blocks: TeamBlocks) -> Views:
        shown = layout.views(blocks)
        names = {id(block): f"step {n - 1}" for n, block in enumerate(blocks.common)}
        names[id(blocks.common[0])] = "prompt"
        names |= {id(blocks.others_header): "others:", id(blocks.own_header): "own:"}
        for kind, of in (("pause", blocks.pauses), ("work", blocks.work)):
            names |= {id(block): f"{kind} {worker}" for worker, block in enumerate(of)}
        notes.append(named(shown, names))
        return shown

    return Layout(layout.name, views, layout.commits), notes


@every_layout
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_layouts_hold_while_steps_are_committed(name: str, workers: int) -> None:
    """In every pass of a session, whichever workers end a step."""
    layout, notes = watched(LAYOUTS[name])
    team = make(tokenizer(), workers=workers, layout=layout, budget=12, reply_tokens=1)
    notes.clear()  # of the rehearsal
    lines = {w: "." + "x" * (w % 3) + "A.\n\n" * 3 for w in range(workers)}
    result, _ = hold(team.session("Hi."), lines)
    assert len(result.steps) > workers
    counts = set()
    for views in notes:
        closing = sum(block.startswith("step") for block in views[0])
        assert views == [as_defined(name, w, workers, closing) for w in range(workers)]
        counts.add(closing)
    expected = {sum(w % 3 == n for w in range(workers)) for n in range(3)}
    assert counts == ({0} | expected if layout.commits else {0})


def reversed_others(blocks: TeamBlocks) -> list[list[CacheBlock]]:
    """Shows the others in reverse order, without any headers."""
    team = range(len(blocks.work))
    return [[*blocks.common, *reversed([*blocks.others(w)]), blocks.work[w]] for w in team]


def only_common(blocks: TeamBlocks) -> tuple[tuple[CacheBlock, ...], ...]:
    """Returns tuples instead of lists."""
    return tuple((*blocks.common, own) for own in blocks.work)


class Longest:
    """A callable object that depends on the length of blocks."""

    def __call__(self, blocks: TeamBlocks) -> Views:
        longest = max(blocks.work, key=len)
        return [
            [*blocks.common, *([longest] if longest is not own else []), own] for own in blocks.work
        ]


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (reversed_others, "reversed_others"),
        (only_common, "only_common"),
        (Longest(), "Longest"),
        (lambda blocks: LAYOUTS["combined"].views(blocks), "<lambda>"),
        (Layout("mine", reversed_others), "mine"),
        (Layout("mine", only_common, commits=False), "mine"),
    ],
)
@pytest.mark.parametrize("workers", [2, 3])
def test_users_write_layouts(layout: Any, name: str, workers: int) -> None:
    """As a function, a callable object or a Layout; functions commit."""
    team = make(tokenizer(), workers=workers, layout=layout, budget=9, reply_tokens=1)
    result, _ = hold(team.session("Hi."), {0: "A.\n\n", 1: "xxB.\n\n"})
    assert result.layout == name
    assert team.layout.commits == getattr(layout, "commits", True)
    assert [(step.worker, step.written) for step in result.steps] == [
        ("Alice", "A.\n\n"),
        ("Bob", "xxB.\n\n"),
    ]


# What is refused.


def broken(_: TeamBlocks) -> Views:
    raise ZeroDivisionError("nothing fits")


def cut(blocks: TeamBlocks) -> Views:
    """Expects one step that is being committed, and fails if there is none."""
    return [[blocks.common[0], blocks.common[1], own] for own in blocks.work]


def right(blocks: TeamBlocks) -> list[list[CacheBlock]]:
    return [[*blocks.common, own] for own in blocks.work]


stranger = CacheBlock(cast("Any", None))

WRONG: dict[str, tuple[Callable[[TeamBlocks], Any], str]] = {
    "no own work": (lambda b: [[*b.common]] * len(b.work), "worker 0 does not end with its own"),
    "own work not last": (
        lambda b: [*right(b)[:-1], [b.work[-1], *b.common]],
        "worker 1 does not end with its own work",
    ),
    "another's work last": (lambda b: right(b)[::-1], "worker 0 does not end with its own work"),
    "empty view": (lambda b: [*right(b)[:-1], []], "worker 1 does not end"),
    "text as a view": (lambda b: [*right(b)[:-1], "work"], "worker 1 does not end"),
    "foreign block": (
        lambda b: [[*b.common, stranger, own] for own in b.work],
        "worker 0 holds a block twice or one that is not of this team",
    ),
    "no block": (lambda b: [[None, own] for own in b.work], "not of this team"),
    "a block twice": (
        lambda b: [[*b.common, *b.common, own] for own in b.work],
        "worker 0 holds a block twice",
    ),
    "too few views": (lambda b: right(b)[:-1], "for 2 workers: it must give a list"),
    "nothing": (lambda _: None, "gives None for 2 workers"),
    "a generator": (lambda b: (view for view in right(b)), "gives <generator"),
    "raises": (broken, "'broken' raised ZeroDivisionError for 2 workers: nothing fits"),
    "takes nothing": (cast("Any", lambda: None), "raised TypeError"),
    "counts on commits": (cut, "'cut' raised IndexError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_layouts_that_make_no_sense(case: str) -> None:
    """They are refused when the team is made, before any session."""
    layout, words = WRONG[case]
    with pytest.raises(InvalidLayoutError, match=words) as caught:
        Team(tokenizer(), layout=layout)
    assert isinstance(caught.value, HogwildError)
    raised = "raised" in words
    assert (caught.value.__cause__ is not None) == raised


@pytest.mark.parametrize("layout", ["Combined", "", None])
def test_layouts_that_there_are_not(layout: Any) -> None:
    """The message lists the known layouts, even for a single worker, which needs none."""
    for workers in (1, 2):
        with pytest.raises(InvalidLayoutError) as caught:
            Team(tokenizer(), layout=layout, workers=workers)
        assert repr(layout) in str(caught.value)
        assert all(name in str(caught.value) for name in LAYOUTS)


@pytest.mark.parametrize("workers", [3, 8])
def test_a_layout_is_tried_with_the_teams_size(workers: int) -> None:
    """A layout for two workers is accepted for two, and for no other team."""

    def of_two(blocks: TeamBlocks) -> Views:
        alice, bob = blocks.work
        return [[*blocks.common, bob, alice], [*blocks.common, alice, bob]]

    assert Team(tokenizer(), layout=of_two).layout.name == "of_two"
    with pytest.raises(InvalidLayoutError, match=f"ValueError for {workers} workers"):
        Team(tokenizer(), layout=of_two, workers=workers)


def test_a_layout_that_fails_later() -> None:
    """It ends its session with a partial result, and does not affect others."""

    def fails(blocks: TeamBlocks) -> Sequence[Sequence[CacheBlock]]:
        if len(blocks.work[0]) > 45:
            raise LookupError("lost")
        return right(blocks)

    team = make(tokenizer(), layout=fails, budget=60)
    fine = make(tokenizer(), layout="combined", budget=60, reply_tokens=1)
    with voices(tokenizer(), {0: "A.\n\n" * 2}) as engine:
        handles = [engine.submit(each.session("Hi.")) for each in (team, fine)]
        with pytest.raises(SessionFailedError, match="'fails' raised LookupError") as caught:
            handles[0].result(WAIT)
        assert isinstance(caught.value.__cause__, InvalidLayoutError)
        assert handles[1].result(WAIT).passes == 60
    partial = caught.value.partial
    assert partial.finish_reason == "error"
    assert [step.written for step in partial.steps] == ["A.\n\n", "A.\n\n"]
    assert model().pool.used_pages == 0
