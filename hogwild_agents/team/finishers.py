"""Finishers: one writer continues from the live cache and turns thinking into an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hogwild_agents.engine import Block, Stream, Write
from hogwild_agents.team.text import Reader


@dataclass(slots=True, eq=False)
class Writer:
    r"""One stream that writes a reply, or the answer of the early finisher.

    Attributes:
        view: What it sees; it writes to the last block.
        pending: Ids that it writes in the next pass.
        stream: Chooses its tokens.
        reader: Turns them into text.
        ends: Ids that end its text.
        limit: The most tokens it may draw.
        complete: Whether what it wrote is whole, so that it may stop before an end token.
        stop: Strings before which its text ends.
        lead: What stood before its text and belongs to the answer, such as `\boxed{`.
        budgets: Those of the snapshots that its answer is for.
        before: Writes that go along with its first: what was drawn and is not in the cache yet.
        forks: Blocks that are its own, to be freed when it is done.
        text: What it wrote, but for what may turn out to be the beginning of a stop string.
        held: That.
        tokens: How many tokens it drew.
        reason: Why it is done, or None while it is not.
    """

    view: Sequence[Block]
    pending: Sequence[int]
    stream: Stream
    reader: Reader
    ends: frozenset[int]
    limit: int
    complete: Callable[[str], bool]
    lead: str
    budgets: Sequence[int]
    before: list[Write]
    forks: list[Block]
    stop: Sequence[str] = ()
    text: str = ""
    held: str = ""
    tokens: int = 0
    reason: Literal["stop", "length"] | None = None

    def writes(self) -> list[Write]:
        """Its part in the next pass; its own write is the last."""
        before, self.before = self.before, []
        return [*before, Write(self.view, self.pending, self.stream)]

    def take(self, token: int) -> str:
        """Takes the token drawn; returns the text that is now sure to be part of what it writes."""
        self.pending = [token]
        self.tokens += 1
        if token in self.ends:
            self.reason, new = "stop", self.reader.flush()
        else:
            new = self.reader.push(token)
            if self.complete(self.text + new):
                self.reason = "stop"
            elif self.tokens >= self.limit:
                self.reason = "length"
                new += self.reader.flush()
        new = self._cut(self.held + new)
        self.text += new
        return new

    def _cut(self, new: str) -> str:
        """`new` up to a stop string, or up to where one may have begun that is not whole yet."""
        self.held = ""
        found = [place for stop in self.stop if (place := new.find(stop)) >= 0]
        if found:
            self.reason = "stop"
            return new[: min(found)]
        if self.reason is None:
            begun = [
                length
                for stop in self.stop
                for length in range(1, len(stop))
                if new.endswith(stop[:length])
            ]
            kept = len(new) - max(begun, default=0)
            new, self.held = new[:kept], new[kept:]
        return new
