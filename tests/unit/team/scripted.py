"""Models that write what a test wants: only their logits are forced, the rest is real.

A script is a function of the ids that a stream sees, and of nothing else. So a test that knows what
a worker should see also knows what it writes, and a worker that sees something else writes
something else.
"""

from __future__ import annotations

import itertools
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hogwild_agents.engine import CacheBlock, Engine, Handle, SamplingParams, SharedCacheModel
from hogwild_agents.engine.attention import interface
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.errors import SessionFailedError
from hogwild_agents.team import (
    CollaborationPrompt,
    Event,
    Result,
    Session,
    Team,
    TeamTokenizer,
    steps,
)
from tests.unit.engine.families import Family, build
from tests.unit.team.listener import check_events
from tests.unit.team.tokenizers import byte_level, llama3_like, plain_bytes

E = TypeVar("E", bound=Event)
Ids: TypeAlias = tuple[int, ...]
Script: TypeAlias = Callable[[Ids], "int | None"]
"""From the ids that a stream sees to the token that it draws; None is the model's own choice."""

TINY = Family(
    "tiny",
    "qwen3",
    {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
    },
)
WAIT = 60.0
"""Seconds after which a test gives up on something that should come at once."""

GREEDY = SamplingParams(temperature=0)
CERTAIN = 1e6
"""A logit far above all others."""


class KnownBlock(CacheBlock):
    """A block that knows which ids it holds."""

    __slots__ = ("_ids",)

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._ids: list[int] = []

    @property
    def ids(self) -> list[int]:
        """Ids in the block. Those that were cut off stay known: they may return from the host."""
        return self._ids[: len(self)]

    def write(self, at: int, tokens: Sequence[int]) -> None:
        """Records the ids that were written from position `at` on."""
        self._ids[at:] = tokens

    def extend(self, other: CacheBlock) -> None:
        """As a block."""
        at, ids = len(self), known(other).ids
        super().extend(other)
        self.write(at, ids)

    def fork(self) -> KnownBlock:
        """As a block."""
        plain, twin = super().fork(), KnownBlock(self.pool)
        twin._extents, plain._extents, twin._length = plain._extents, [], len(plain)
        twin.write(0, self.ids)
        return twin


def known(block: CacheBlock) -> KnownBlock:
    """A block of a `ScriptedModel`."""
    assert isinstance(block, KnownBlock)
    return block


class Row(NamedTuple):
    """One stream in a pass: the ids that it saw, how many of them it wrote, and the real logits."""

    seen: Ids
    wrote: int
    logits: Tensor


class ScriptedModel(SharedCacheModel):
    """A real model that follows a script.

    Attributes:
        script: The script that it follows.
        before: Called with the views before every pass; may raise.
        passes: The rows of every pass.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.script: Script = _silent
        self.before: Callable[[Sequence[Sequence[CacheBlock]]], object] | None = None
        self.passes: list[list[Row]] = []
        super().__init__(*args, **options)

    def new_block(self) -> CacheBlock:
        """An empty block that will know its ids."""
        return KnownBlock(self.pool)

    def run(self, rows: Sequence[interface.Row]) -> Tensor:
        """The real pass, with logits that make the script's token certain."""
        if not isinstance(rows[0].view[-1], KnownBlock):  # the self-check's own
            return super().run(rows)
        if self.before is not None:
            self.before([row.view for row in rows])
        logits = super().run(rows)
        views = [[known(block) for block in row.view] for row in rows]
        for row, view in zip(rows, views, strict=True):
            view[-1].write(row.position, row.tokens.tolist())
        seen = [tuple(token for block in view for token in block.ids) for view in views]
        self.passes.append([*map(Row, seen, (row.count for row in rows), logits.clone())])
        for ids, logit in zip(seen, logits, strict=True):
            token = self.script(ids)
            if token is not None:
                logit[token] = CERTAIN
        return logits


def _silent(_: Ids) -> None:
    """No script."""


def scripted(
    script: Script = _silent, *, pages: int | None = None, max_length: int | None = None
) -> ScriptedModel:
    """The tiny model with a script, and a cache of `pages` pages, by default 4,096."""
    if _tiny().pool.used_pages:  # an earlier test has failed
        _tiny.cache_clear()
    model = _tiny()
    model.max_length = max_length or 4096
    model.pool.limit_bytes = (pages or 4096) * PAGE * model.pool.bytes_per_token
    model.script, model.before, model.passes = script, None, []
    return model


@cache
def _tiny() -> ScriptedModel:
    """The one model of all tests: loading takes longer than most of them."""
    return ScriptedModel.from_pretrained(build(TINY))


@cache
def tokenizer(name: str = "bytes") -> TeamTokenizer:
    """`bytes`: no thinking and no template; `thinking`: ChatML; `headers`: no thinking."""
    makers: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
        "bytes": plain_bytes,
        "thinking": byte_level,
        "headers": llama3_like,
    }
    return TeamTokenizer(makers[name]())


class Terse(CollaborationPrompt):
    """A prompt of few tokens."""

    def system(self, workers: Sequence[str], *, layout: str, answer: str) -> str:
        """A few words."""
        return f"{len(workers)}, {layout}, {answer[:5]}."

    def opening(self, workers: Sequence[str], index: int) -> str:
        """Two words; none for a single worker."""
        return f"I'm {workers[index]}." if len(workers) > 1 else ""


def team_of(workers: Any = 2, name: str = "bytes", **options: Any) -> Team:
    """A team with a short prompt; its tokens are bytes, or those of another tokenizer."""
    defaults: dict[str, Any] = {
        "prompt": Terse(),
        "interrupts": [],
        "budget": 20,
        "reply_tokens": 3,
        "sampling": GREEDY,
    }
    return Team(tokenizer(name), workers=workers, **defaults | options)


def begin(name: str) -> str:
    """The text before a worker's first token."""
    return f"**{name} [1]:** I'm {name}."


def prompt_of(session: Session) -> list[int]:
    """All ids before the first id of the first worker."""
    return [*session.prompt, *session._first_ids]


def belongs(seen: Ids, session: Session) -> bool:
    """Whether a stream that sees this belongs to the session, and has read all of its prompt."""
    return seen[: len(session.prompt)] == tuple(session.prompt)


def piece_ids(pieces: Sequence[str | int], team: Team) -> list[list[int]]:
    """Each piece as ids; a number is an id."""
    return [[p] if isinstance(p, int) else team.tokenizer.encode(p) for p in pieces]


@dataclass(frozen=True)
class Chatter:
    """Writes whole pieces, in an order that depends on every visible id.

    Attributes:
        pieces: The pieces that it may write, as ids.
        seed: Another seed gives another order.
    """

    pieces: list[list[int]]
    seed: int = 0

    def __call__(self, seen: Ids) -> int:
        for piece in self.pieces:
            if seen[-len(piece) :] == tuple(piece):
                continue
            for length in range(len(piece) - 1, 0, -1):
                if seen[-length:] == tuple(piece[:length]):
                    return piece[length]
        index = zlib.crc32(array("q", seen).tobytes(), self.seed) % len(self.pieces)
        return self.pieces[index][0]


@dataclass(frozen=True)
class Role:
    """The scripts of one session: one for its workers, one for the writers of its answer."""

    session: Session
    worker: Script
    writer: Script

    def __call__(self, seen: Ids) -> int | None:
        team = self.session.team
        rest = seen[len(self.session.prompt) :]
        text = team.tokenizer.decode(rest)
        writes = any(mark in text for mark in (steps.REPLY_HEADER, team.answer.opening.strip()))
        writes = writes or team.replies_at_once or not team.thinking_ids.isdisjoint(rest)
        return (self.writer if writes else self.worker)(seen)


@dataclass
class Cast:
    """The roles of many sessions, told apart by their prompts."""

    roles: list[Role]

    def __call__(self, seen: Ids) -> int | None:
        for role in self.roles:
            if belongs(seen, role.session):
                return role(seen)
        return None


class Lines:
    r"""Writes given lines: each follows some text of the system's.

    Args:
        team: The team.
        lines: From the text that a stream has last read, such as `**Bob [2]:** `, to what it writes
            next, as ids or text. The line for "" follows when lines run out, again and again.
    """

    def __init__(self, team: Team, lines: Mapping[str, str | Sequence[int]]) -> None:
        encode = team.tokenizer.encode
        self._lines = {
            tuple(encode(cue)): encode(line) if isinstance(line, str) else [*line]
            for cue, line in lines.items()
            if cue
        }
        filler = lines.get("", "x")
        self._filler = encode(filler) if isinstance(filler, str) else [*filler]

    def __call__(self, seen: Ids) -> int:
        ends = ((_last_end(seen, cue), len(cue), cue) for cue in self._lines)
        end, _, cue = max(ends, default=(-1, 0, ()))
        line = self._lines.get(cue, []) if end >= 0 else []
        written = len(seen) - max(end, 0)
        return line[written] if written < len(line) else self._filler[written % len(self._filler)]


def _last_end(seen: Ids, cue: Ids) -> int:
    """Where the last `cue` in `seen` ends, or -1."""
    size = len(cue)
    return next((at for at in range(len(seen), size - 1, -1) if seen[at - size : at] == cue), -1)


def fail_after(passes: int) -> Callable[[Any], None]:
    """For `ScriptedModel.before`: lets this many passes succeed."""
    left = itertools.count(passes, -1)

    def before(_: Any) -> None:
        if next(left) <= 0:
            raise ArithmeticError("the device is on fire")

    return before


@dataclass(frozen=True)
class Played:
    """The record of one session that had an engine for itself."""

    result: Result
    events: list[Event]
    passes: list[list[Row]]
    error: BaseException | None
    team: Team

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def views(self) -> list[list[str]]:
        """The text that the rows of every pass saw."""
        return [[self.team.tokenizer.decode(row.seen) for row in rows] for rows in self.passes]


def play(
    team: Team,
    lines: Mapping[str, str | Sequence[int]] | Script | None = None,
    *,
    problem: Any = "Q?",
    model: ScriptedModel | None = None,
    notes: Sequence[str] = (),
    meanwhile: Callable[[Handle[Event, Result]], object] | None = None,
) -> Played:
    """Runs one session on its own engine with its lines; events and result must agree.

    Args:
        team: The team.
        lines: The lines of its streams, as `Lines` takes them, or a script.
        problem: The problem.
        model: The scripted model, if a test has prepared one.
        notes: Notes to the team before it begins.
        meanwhile: Called with the handle as soon as there is one.
    """
    model = model or scripted()
    if lines is not None:
        model.script = lines if callable(lines) else Lines(team, lines)
    error = None
    with Engine(model) as engine:
        session = team.session(problem)
        for text in notes:
            session.hear(text)
        handle = engine.submit(session)
        if meanwhile is not None:
            meanwhile(handle)
        try:
            result = handle.result(WAIT)
        except SessionFailedError as failed:
            result, error = failed.partial, failed.__cause__
        events = [*handle]
    assert model.pool.used_pages == 0, "a block was lost"
    check_events(events, result)
    return Played(result, events, model.passes, error, team)
