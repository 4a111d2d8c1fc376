"""Session: one problem, from the prompt to the answer; what the engine runs for a team."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hogwild_agents.engine import (
    BatchEntry,
    CacheBlock,
    Lease,
    SamplerState,
    SamplingParams,
    SharedCacheModel,
    Usage,
    Write,
)
from hogwild_agents.engine.cache.blocks import PAGE
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidMessageError,
    InvalidSamplingError,
    InvalidTokensError,
)
from hogwild_agents.team import events as ev
from hogwild_agents.team import steps
from hogwild_agents.team.reply_writer import ENDING, Guide, ReplyWriter
from hogwild_agents.team.tokenizer import Reader
from hogwild_agents.team.workers import Running, Thinking

if TYPE_CHECKING:
    from hogwild_agents.team.team import Team

LONGEST_COMMIT = 512
"""Tokens of a step that the memory of a session is reckoned with."""

CONTEXT_SHARE = 4
"""A reply is promised at most one part in this many of the model's context."""


class Session:
    """One problem being solved by one team; made by `Team.session`, run by `Engine.submit`, once.

    Attributes:
        team: Who works on it.
        problem: As it was given.
        prompt: Ids of the prompt that go into the cache before the team begins.
        most_tokens: The most cache it may ever need; known once it is submitted.
        max_writers: How many write at once.
        events: What has happened since the engine last looked.
    """

    def __init__(
        self,
        team: Team,
        problem: str | Sequence[Mapping[str, Any]],
        prompt: Sequence[int],
        guide: Guide | None = None,
    ) -> None:
        self.team = team
        self.problem = problem
        self._guide = guide
        # A worker alone goes on from the prompt's last token, which must not be in the cache yet.
        alone = len(team.workers) == 1 and len(prompt) > 1
        self.prompt, self._first = (prompt[:-1], prompt[-1:]) if alone else (prompt, [])
        self.events: list[ev.Event] = []
        self.max_writers = len(team.workers) + 1
        self.most_tokens = len(prompt)
        self._reserve = 0  # tokens of every view that are kept free for the finisher
        self._thinking: Thinking | None = None
        self._writers: list[ReplyWriter] = []
        self._reply: ReplyWriter | None = None
        self._reply_passes = 0
        self._snapshots: dict[int, ev.Snapshot] = {}
        self._reason: ev.FinishReason | None = None
        self._answer: Any = None
        self._said: deque[str] = deque()
        self._unheard: list[str] = []
        self._stop = False
        self._submitted = 0.0
        self._thought: float | None = None

    def check(self, model: SharedCacheModel) -> None:
        """Counts what the session may need.

        Raises:
            InvalidTokensError: The team's words have ids that the model does not know.
            InvalidSamplingError: So have the banned tokens.
            ContextLengthError: The model's context leaves no room to think and answer.
        """
        team = self.team
        limit = min(team.reply_tokens, model.max_length // CONTEXT_SHARE)
        limit = 0 if team.finisher == "answer" else limit
        limit += 0 if self._guide is None else ENDING
        if team.finisher == "answer" or team.snapshots:
            opening = team.tokenizer.encode(team.answer.opening)
            limit = max(limit, team.answer.max_tokens + len(opening))
        self._reserve = limit + PAGE
        given = [*team.header_tokens(), *team.opening_tokens()]
        highest = max(max(tokens, default=0) for tokens in given)
        if highest >= model.vocab_size:
            raise InvalidTokensError(
                f"The team's words need token id {highest}, but the model's ids end at "
                f"{model.vocab_size - 1}: is this the model's own tokenizer?"
            )
        least = len(self.prompt) + sum(map(len, given)) + self._reserve
        if least > model.max_length:
            raise ContextLengthError(
                f"The prompt of {len(self.prompt):,} tokens is too long: with headers, first words "
                f"and {self._reserve:,} tokens kept for the answer it takes {least:,}, and this "
                f"model's limit is {model.max_length:,}. Shorten the problem, use the brief prompt "
                "or one without examples, or lower reply_tokens."
            )
        beyond = [token for token in team.sampling.banned if token >= model.predicted]
        if beyond:
            raise InvalidSamplingError(
                f"banned names token {beyond[0]}, but the vocabulary ends at {model.predicted - 1}."
            )
        # Prefixes and interrupts come on top of what workers draw: a quarter is plenty. And a step
        # stands twice in the cache for a moment when it is committed.
        drawn = len(team.workers) * (team.budget * 5 // 4 + PAGE + min(team.budget, LONGEST_COMMIT))
        copies = len(team.snapshots) * (self._reserve + len(team.workers) * PAGE)
        room = model.max_length * len(team.workers)
        self.most_tokens = min(least + drawn, room) + len(given) * PAGE + copies
        self._submitted = time.monotonic()

    def hear(self, message: Any) -> None:
        """Puts a user's note into the shared history before the next pass.

        Raises:
            InvalidMessageError: It is no text, or empty.
        """
        if not isinstance(message, str) or not message.strip():
            raise InvalidMessageError(f"Cannot say {message!r}: give a text that is not empty.")
        self._said.append(message)

    def stop(self) -> None:
        """Ends the thinking before the next pass; the finisher still answers."""
        self._stop = True
        if self._thinking is not None:
            self._thinking.hurry()

    def run(self, lease: Lease) -> Running:
        """The session, pass by pass."""
        team = self.team
        self._lease = lease
        self._thinking = thinking = Thinking(team, self.problem, lease, self._first, self._tell)
        self._tell(
            ev.Started,
            workers=team.workers,
            prompt_tokens=lease.usage.prompt_tokens + len(self._first),
            reused_tokens=lease.usage.reused_tokens,
            finisher=team.finisher,
        )
        if team.replies_at_once:
            self._reason = "ended"
        else:
            yield from thinking.begin()
        while self._reason is None:
            yield from self._read_notes(thinking)
            if self._stop or not self._has_room():
                self._reason = "stopped" if self._stop else "length"
                break
            yield from thinking.read_ahead()
            writes, commits = thinking.turn()
            count = len(writes)
            drawn = yield self._entry(writes, commits)
            thinking.take(drawn[count - len(thinking.awake()) : count])
            self._take(drawn[count:])
            self._decide(thinking)
            if self._reason is None:
                if not self._stop:
                    yield from thinking.begin_steps()
                self._take_snapshot(thinking)
        yield from self._finish(thinking)

    def _read_notes(self, thinking: Thinking) -> Running:
        """Reads what was said meanwhile; what is too long for the context stays unheard."""
        heard: list[str] = []
        length = 0
        for text in [*self._said]:
            size = len(text.encode(errors="replace")) + PAGE
            if self._has_room(length + size):
                heard.append(text)
                length += size
            else:
                self._said.remove(text)
                self._unheard.append(text)
        if heard:
            yield from thinking.read_notes(heard)
            for _ in heard:  # only now, so that no fault loses them
                self._said.popleft()

    def result(self, usage: Usage, error: BaseException | None, cancelled: bool) -> ev.Result:
        """What was reached until now."""
        team, thinking, reply = self.team, self._thinking, self._reply
        passes = thinking.passes if thinking else 0
        reason: ev.FinishReason = self._reason or "stopped"
        if error is not None or cancelled:
            reason = "cancelled" if error is None else "error"
        workers = thinking.workers if thinking else []
        result = ev.Result(
            workers=team.workers,
            layout=team.layout.name,
            history=tuple(thinking.history) if thinking else (),
            unfinished=tuple(
                thinking.step_of(worker) for worker in workers if thinking and worker.text
            ),
            answer=thinking.answer if thinking and self._answer is None else self._answer,
            finisher=team.finisher,
            reply="" if reply is None else reply.text + reply.held,
            finish_reason=reason,
            reply_reason=None if reply is None else reply.reason,
            passes=passes,
            reply_passes=self._reply_passes,
            reading_passes=usage.passes - passes - self._reply_passes,
            tokens={worker.name: worker.total for worker in workers},
            reply_tokens=0 if reply is None else reply.tokens,
            prompt_tokens=usage.prompt_tokens and usage.prompt_tokens + len(self._first),
            reused_tokens=usage.reused_tokens,
            preemptions=usage.preemptions,
            interruptions=tuple(thinking.interruptions) if thinking else (),
            snapshots=tuple(self._snapshots[budget] for budget in sorted(self._snapshots)),
            unheard=(*self._unheard, *self._said),
            timings=ev.Timings(
                usage.waited or None, usage.prefilled or None, self._thought, self._seconds
            ),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )
        self._tell(ev.Finished, result=result)
        return result

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._submitted

    def _tell(self, kind: type[ev.Event], **fields: Any) -> None:
        passes = self._thinking.passes if self._thinking else 0
        self.events.append(kind(passes, self._seconds, **fields))

    def _entry(
        self, writes: list[Write], commits: Sequence[tuple[CacheBlock, CacheBlock]] = ()
    ) -> BatchEntry:
        """A turn with the writers of snapshots and reply at the end."""
        for writer in self._writers:
            writes += writer.writes()
        return BatchEntry(writes, commits)

    def _take(self, drawn: Sequence[int | None]) -> None:
        """Hands the writers their tokens, and collects from those who are done."""
        tokens = [token for token in drawn if token is not None]  # the rest go with first writes
        for writer, token in zip([*self._writers], tokens, strict=True):
            new = writer.take(token)
            if writer is self._reply:
                self._tell(ev.ReplyToken, token=token, text=new)
            if writer.reason is not None:
                self._writers.remove(writer)
                self._collect(writer)

    def _collect(self, writer: ReplyWriter) -> None:
        """Takes what a writer has written, which is done."""
        for fork in writer.forks:
            self._lease.free(fork)
        answer = self.team.answer.extract(writer.lead + writer.text)
        for budget in writer.budgets:
            self._keep_snapshot(budget, answer, writer.text, writer.tokens)
        if writer is self._reply and self._answer is None:
            self._answer = answer
            if answer is not None:
                self._tell(ev.AnswerFound, worker=None, answer=answer)

    # When the thinking ends.

    def _decide(self, thinking: Thinking) -> None:
        """Whether the thinking is over, and why."""
        if thinking.finder is not None:
            self._reason = "answer"
        elif not thinking.awake():
            self._reason = "ended"
        elif thinking.passes >= self.team.budget:
            self._reason = "budget"

    def _has_room(self, more: int = 0) -> bool:
        """Whether so many tokens more leave room for the finisher."""
        assert self._thinking is not None
        return self._thinking.longest() + more + self._reserve <= self._lease.model.max_length

    def _take_snapshot(self, thinking: Thinking) -> None:
        """Lets the early finisher answer from a fork, if this is a budget to look at."""
        if thinking.passes in self.team.snapshots:
            _, stated = thinking.stated()
            if stated is None:
                self._writers.append(self._writer(thinking, [thinking.passes], answer=True))
            else:
                self._keep_snapshot(thinking.passes, stated)

    def _keep_snapshot(self, budget: int, answer: Any, text: str = "", tokens: int = 0) -> None:
        assert self._thinking is not None
        passes = min(budget, self._thinking.passes)
        self._snapshots[budget] = ev.Snapshot(budget, passes, answer, text, tokens)
        self._tell(ev.SnapshotTaken, snapshot=self._snapshots[budget])

    # After that.

    def _finish(self, thinking: Thinking) -> Running:
        """Writes the reply or the answer, and ends the snapshots under way."""
        team = self.team
        self._thought = self._seconds
        assert self._reason is not None
        thinking.conclude()
        self._tell(ev.ThinkingEnded, reason=self._reason)
        self._answer = thinking.answer
        begun = {*self._snapshots, *(b for writer in self._writers for b in writer.budgets)}
        left = [budget for budget in team.snapshots if budget not in begun]
        if self._answer is not None:
            for budget in left:
                self._keep_snapshot(budget, self._answer)
            left = []
        if team.finisher == "reply":
            if left:
                self._writers.append(self._writer(thinking, left, answer=True))
            self._reply = self._writer(thinking, [], answer=False)
            self._writers.append(self._reply)
        elif self._answer is None:
            self._reply = self._writer(thinking, left, answer=True)
            self._writers.append(self._reply)
        while self._writers:
            drawn = yield self._entry([])
            self._reply_passes += 1
            self._take(drawn)

    def _writer(self, thinking: Thinking, budgets: Sequence[int], *, answer: bool) -> ReplyWriter:
        """One who goes on from the live cache: who found the answer, or the first still awake.

        Whoever answers writes into forks, so that neither the thinking nor a reply is disturbed.
        What was drawn last is not in the cache yet, and is written along with the first token; the
        beginning of a step in which nothing was drawn is left out.
        """
        team, lease, views = self.team, self._lease, thinking.views()
        author = thinking.finder or [*thinking.awake(), *thinking.workers][0]
        twins: dict[CacheBlock, CacheBlock] = {}
        if answer:
            mine = [lease.prompt, *(step.block for step in thinking.closing)]
            mine += [worker.work for worker in thinking.workers]
            twins = {block: lease.fork(block) for block in mine}
        others = [
            (views[worker.place], worker.owed)
            for worker in thinking.workers
            if worker is not author
        ]
        closing = [(step.view, step.owed) for step in thinking.closing]
        before = [
            Write([twins.get(block, block) for block in view], owed)
            for view, owed in (*closing, *others)
            if owed
        ]
        view = [twins.get(block, block) for block in views[author.place]]
        between = steps.SEPARATOR if author.written else ""
        if answer:
            pending = team.tokenizer.encode(between + team.answer.opening.lstrip("\n"))
            params = SamplingParams(temperature=0, banned=thinking.sampling(0, team.marks).banned)
            limit = team.answer.max_tokens
        else:
            pending = [] if team.replies_at_once else team.closing_tokens(between)
            params = thinking.sampling(len(team.workers), team.marks)
            taken = sum(map(len, view)) + len(author.owed) + len(pending)
            taken += sum(len(write.tokens) for write in before)
            taken += 0 if self._guide is None else ENDING
            limit = max(1, min(team.reply_tokens, lease.model.max_length - taken))
        return ReplyWriter(
            view=view,
            pending=[*author.owed, *pending],
            sampler=SamplerState(params),
            reader=Reader(team.tokenizer),
            ends=team.tokenizer.ends,
            limit=limit,
            complete=team.answer.complete if answer else _never,
            lead=team.answer.lead if answer else "",
            stop=() if answer else team.stop,
            guide=None if answer else self._guide,
            columns=lease.model.predicted,
            budgets=budgets,
            before=before,
            forks=[*twins.values()],
        )


def _never(_: str) -> bool:
    """A reply is whole only when its writer ends it."""
    return False
