"""ReplyWriter: one stream that continues from the live cache and writes the reply or the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from torch.nn.functional import pad

from hogwild_agents.engine import CacheBlock, SamplerState, Write
from hogwild_agents.team.tokenizer import Detokenizer

GUIDE_OVERRUN = 256
"""Tokens by which a guided reply may exceed its limit, to reach a proper end."""


class Guide(Protocol):
    """Keeps one reply to a form, such as a grammar.

    Attributes:
        opening: The text at which the form begins, after any free text; None if the whole reply
            has the form.
    """

    opening: str | None

    @property
    def done(self) -> bool:
        """Whether the reply is complete and nothing can follow."""

    def begin(self) -> Sequence[int]:
        """The ids that the reply must begin with. At least one token remains to be drawn."""

    def allowed(self) -> Tensor | None:
        """The tokens that may be drawn next, bool [ids of the tokenizer], or None for all."""

    def take(self, token: int) -> Sequence[int]:
        """Accepts the drawn token; returns the ids that must follow it and are not drawn."""

    def hurry(self, room: int) -> bool:
        """From now on allows only what leads to the end; says if `room` more tokens reach it."""


@dataclass(slots=True, eq=False)
class ReplyWriter:
    r"""One stream that writes a reply, or the answer of the early finisher.

    Attributes:
        view: The blocks that it sees; it writes to the last one.
        pending_ids: Ids that it writes in the next pass.
        sampler: Chooses its tokens.
        detokenizer: Turns them into text.
        ends: Ids that end its text.
        limit: The most tokens that it may draw.
        is_complete: Whether a text is complete, so that it may stop before an end token.
        answer_prefix: Text before its own that belongs to the answer, such as `\boxed{`.
        budgets: Budgets of the snapshots that its answer is for.
        first_writes: Writes that go along with its first: tokens that other streams drew and that
            are not in the cache yet.
        forks: Blocks of its own, to be freed when it is done.
        stop: Strings before which its text ends.
        guide: Keeps its text to a form. At the limit the guide is told to hurry; the text is cut
            off only if it cannot end soon.
        vocab_size: How many ids the model predicts.
        text: The text so far, without the part that is held.
        held: The end of the text that may turn out to be the beginning of a stop string.
        tokens: How many tokens it has written.
        reason: Why it is done, or None while it is not.
    """

    view: Sequence[CacheBlock]
    pending_ids: Sequence[int]
    sampler: SamplerState
    detokenizer: Detokenizer
    ends: frozenset[int]
    limit: int
    is_complete: Callable[[str], bool]
    answer_prefix: str
    budgets: Sequence[int]
    first_writes: list[Write]
    forks: list[CacheBlock]
    stop: Sequence[str] = ()
    guide: Guide | None = None
    vocab_size: int = 0
    text: str = ""
    held: str = ""
    tokens: int = 0
    reason: Literal["stop", "length"] | None = None

    def __post_init__(self) -> None:
        """Writes the beginning that the guide demands."""
        if self.guide is not None:
            self.held = self._append(self.guide.begin())

    def writes(self) -> list[Write]:
        """Its part in the next pass; its own write is the last."""
        first_writes, self.first_writes = self.first_writes, []
        allowed = None if self.guide is None else self.guide.allowed()
        if allowed is not None:  # models may predict more ids than their tokenizers have, or fewer
            allowed = pad(allowed, (0, self.vocab_size - len(allowed)))
        return [*first_writes, Write(self.view, self.pending_ids, self.sampler, allowed)]

    def accept(self, token: int) -> str:
        """Takes the drawn token; returns the new text that is certain to be part of the reply."""
        self.pending_ids = []
        if token in self.ends:
            self.tokens += 1
            self.reason, new = "stop", self.detokenizer.flush()
        else:
            forced = () if self.guide is None else self.guide.take(token)
            new = self._append([token, *forced])
            self._look_for_end(new)
            if self.reason is not None:
                new += self.detokenizer.flush()
        new = self._cut_at_stop(self.held + new)
        self.text += new
        return new

    def _append(self, tokens: Sequence[int]) -> str:
        """Adds tokens to the next pass; returns the text that they complete."""
        self.pending_ids = [*self.pending_ids, *tokens]
        self.tokens += len(tokens)
        return "".join(map(self.detokenizer.push, tokens))

    def _look_for_end(self, new: str) -> None:
        """Sets the reason if the text is complete or too long."""
        if self.guide is not None and self.guide.done:
            self.reason = "stop" if self.tokens <= self.limit else "length"
        elif self.is_complete(self.text + self.held + new):
            self.reason = "stop"
        elif self.tokens >= self.limit:
            room = self.limit + GUIDE_OVERRUN - self.tokens
            if self.guide is None or room <= 0 or not self.guide.hurry(room):
                self.reason = "length"

    def _cut_at_stop(self, new: str) -> str:
        """`new` up to a stop string; holds back an end that may become one."""
        self.held = ""
        free = self._free_text(new)
        starts = [start for stop in self.stop if (start := free.find(stop)) >= 0]
        if starts:
            self.reason = "stop"
            return new[: min(starts)]
        if self.reason is None and free == new:
            lengths = [
                length
                for stop in self.stop
                for length in range(1, len(stop))
                if new.endswith(stop[:length])
            ]
            certain = len(new) - max(lengths, default=0)
            new, self.held = new[:certain], new[certain:]
        return new

    def _free_text(self, new: str) -> str:
        """The part of `new` that stop strings may end: text with a form must stay complete."""
        if self.guide is None:
            return new
        if self.guide.opening is None:
            return ""
        end = (self.text + new).find(self.guide.opening)
        return new if end < 0 else new[: max(0, end - len(self.text))]
