"""Finishers: one writer continues from the live cache and turns thinking into an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from torch.nn.functional import pad

from hogwild_agents.engine import CacheBlock, SamplerState, Write
from hogwild_agents.team.tokenizer import Reader

ENDING = 256
"""Tokens that a guided reply may take beyond its limit to come to a proper end."""


class Guide(Protocol):
    """Keeps a reply to a form, such as a grammar; made for one reply.

    Attributes:
        opening: What ends the free text that a reply may begin with; None if there is none.
    """

    opening: str | None

    @property
    def done(self) -> bool:
        """Whether the reply is whole, with nothing that could follow."""

    def begin(self) -> Sequence[int]:
        """The ids that the reply must begin with; at least one token is left to be drawn."""

    def allowed(self) -> Tensor | None:
        """What may be drawn next, bool [ids of the tokenizer], or None for anything."""

    def take(self, token: int) -> Sequence[int]:
        """Follows the token drawn; returns the ids that must come after it, which are not drawn."""

    def hurry(self, room: int) -> bool:
        """Allows from now on only what leads to the end; whether `room` more tokens reach it."""


@dataclass(slots=True, eq=False)
class ReplyWriter:
    r"""One stream that writes a reply, or the answer of the early finisher.

    Attributes:
        view: What it sees; it writes to the last block.
        pending: Ids that it writes in the next pass.
        sampler: Chooses its tokens.
        reader: Turns them into text.
        ends: Ids that end its text.
        limit: The most tokens it may draw.
        complete: Whether what it wrote is whole, so that it may stop before an end token.
        stop: Strings before which its text ends.
        guide: Keeps its text to a form, if it has one; at its limit it is hurried, and cut off only
            where no end is near.
        columns: How many ids the model predicts.
        lead: What stood before its text and belongs to the answer, such as `\boxed{`.
        budgets: Those of the snapshots that its answer is for.
        before: Writes that go along with its first: what was drawn and is not in the cache yet.
        forks: Blocks that are its own, to be freed when it is done.
        text: What it wrote, but for what may turn out to be the beginning of a stop string.
        held: That.
        tokens: How many tokens it drew.
        reason: Why it is done, or None while it is not.
    """

    view: Sequence[CacheBlock]
    pending: Sequence[int]
    sampler: SamplerState
    reader: Reader
    ends: frozenset[int]
    limit: int
    complete: Callable[[str], bool]
    lead: str
    budgets: Sequence[int]
    before: list[Write]
    forks: list[CacheBlock]
    stop: Sequence[str] = ()
    guide: Guide | None = None
    columns: int = 0
    text: str = ""
    held: str = ""
    tokens: int = 0
    reason: Literal["stop", "length"] | None = None

    def __post_init__(self) -> None:
        """Writes what the guide's form begins with."""
        if self.guide is not None:
            self.held = self._write(self.guide.begin())

    def writes(self) -> list[Write]:
        """Its part in the next pass; its own write is the last."""
        before, self.before = self.before, []
        allowed = None if self.guide is None else self.guide.allowed()
        if allowed is not None:  # models may predict more ids than their tokenizers have, or fewer
            allowed = pad(allowed, (0, self.columns - len(allowed)))
        return [*before, Write(self.view, self.pending, self.sampler, allowed)]

    def take(self, token: int) -> str:
        """Takes the token drawn; returns the text that is now sure to be part of what it writes."""
        self.pending = []
        if token in self.ends:
            self.tokens += 1
            self.reason, new = "stop", self.reader.flush()
        else:
            forced = () if self.guide is None else self.guide.take(token)
            new = self._write([token, *forced])
            self._look_for_end(new)
            if self.reason is not None:
                new += self.reader.flush()
        new = self._cut(self.held + new)
        self.text += new
        return new

    def _write(self, tokens: Sequence[int]) -> str:
        """Lays tokens down for the next pass; returns the text that they complete."""
        self.pending = [*self.pending, *tokens]
        self.tokens += len(tokens)
        return "".join(map(self.reader.push, tokens))

    def _look_for_end(self, new: str) -> None:
        """Ends the text where it is whole or too long."""
        if self.guide is not None and self.guide.done:
            self.reason = "stop" if self.tokens <= self.limit else "length"
        elif self.complete(self.text + self.held + new):
            self.reason = "stop"
        elif self.tokens >= self.limit:
            room = self.limit + ENDING - self.tokens
            if self.guide is None or room <= 0 or not self.guide.hurry(room):
                self.reason = "length"

    def _cut(self, new: str) -> str:
        """`new` up to a stop string, or up to where one may have begun that is not whole yet."""
        self.held = ""
        free = self._free(new)
        found = [place for stop in self.stop if (place := free.find(stop)) >= 0]
        if found:
            self.reason = "stop"
            return new[: min(found)]
        if self.reason is None and free == new:
            begun = [
                length
                for stop in self.stop
                for length in range(1, len(stop))
                if new.endswith(stop[:length])
            ]
            kept = len(new) - max(begun, default=0)
            new, self.held = new[:kept], new[kept:]
        return new

    def _free(self, new: str) -> str:
        """The part of `new` that stop strings may end: a form must be whole."""
        if self.guide is None:
            return new
        if self.guide.opening is None:
            return ""
        end = (self.text + new).find(self.guide.opening)
        return new if end < 0 else new[: max(0, end - len(self.text))]
