"""Session: one problem, from the prompt to the answer. This is the job that an engine runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

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
from hogwild_agents.team.config import TeamConfig
from hogwild_agents.team.reply_writer import GUIDE_OVERRUN, Guide, ReplyWriter
from hogwild_agents.team.tokenizer import Detokenizer
from hogwild_agents.team.workers import Passes, Thinking

LONGEST_COMMIT = 512
"""Tokens of a step that the estimate of a session's memory counts twice, for its commit."""

CONTEXT_SHARE = 4
"""A reply is promised at most this fraction (one in so many) of the model's context."""


class Session:
    """One problem being solved by one team; made by `Team.session`, run by `Engine.submit`, once.

    Attributes:
        team: The team that works on it.
        problem: The problem as the caller gave it.
        prompt: Ids of the prompt that go into the cache before the team begins.
        most_tokens: The most cache it may ever need; known once it is submitted.
        max_writers: The most streams that write in one pass.
        events: Events since the engine last collected them.
    """

    def __init__(
        self,
        team: TeamConfig,
        problem: str | Sequence[Mapping[str, Any]],
        prompt: Sequence[int],
        guide: Guide | None = None,
    ) -> None:
        self.team = team
        self.problem = problem
        self._guide = guide
        # A single worker continues from the prompt's last token, so that one is not cached before.
        split = team.is_single and len(prompt) > 1
        self.prompt, self._first_ids = (prompt[:-1], prompt[-1:]) if split else (prompt, [])
        self.events: list[ev.Event] = []
        self.max_writers = len(team.workers) + 1
        self.most_tokens = len(prompt)
        self._reserved_tokens = 0  # of every view, kept free for the finisher
        self._thinking: Thinking | None = None
        self._writers: list[ReplyWriter] = []
        self._reply: ReplyWriter | None = None
        self._reply_passes = 0
        self._snapshots: dict[int, ev.Snapshot] = {}
        self._finish_reason: ev.FinishReason | None = None
        self._answer: Any = None
        self._notes: deque[str] = deque()
        self._unread_notes: list[str] = []
        self._stopped = False
        self._submitted = 0.0
        self._thinking_seconds: float | None = None

    # What the engine and the handle call.

    def check(self, model: SharedCacheModel) -> None:
        """Computes what the session may need, and refuses it if it cannot run.

        Raises:
            InvalidTokensError: The team's texts have ids that the model does not know.
            InvalidSamplingError: The sampling parameters ban such ids.
            ContextLengthError: The model's context leaves no room to think and answer.
        """
        team = self.team
        reserved = min(team.reply_tokens, model.max_length // CONTEXT_SHARE)
        reserved = 0 if team.finisher == "answer" else reserved
        reserved += 0 if self._guide is None else GUIDE_OVERRUN
        if team.finisher == "answer" or team.snapshots:
            opening_ids = team.tokenizer.encode(team.answer.opening)
            reserved = max(reserved, team.answer.max_tokens + len(opening_ids))
        self._reserved_tokens = reserved + PAGE
        texts = [*team.header_tokens(), *team.opening_tokens()]
        highest = max(max(ids, default=0) for ids in texts)
        if highest >= model.vocab_size:
            raise InvalidTokensError(
                f"The team's words need token id {highest}, but the model's ids end at "
                f"{model.vocab_size - 1}: is this the model's own tokenizer?"
            )
        minimum = len(self.prompt) + sum(map(len, texts)) + self._reserved_tokens
        if minimum > model.max_length:
            raise ContextLengthError(
                f"The prompt of {len(self.prompt):,} tokens is too long: with headers, first words "
                f"and {self._reserved_tokens:,} tokens kept for the answer it takes {minimum:,}, "
                f"and this model's limit is {model.max_length:,}. Shorten the problem, use the "
                "brief prompt or one without examples, or lower reply_tokens."
            )
        unknown = [token for token in team.sampling.banned if token >= model.predicted]
        if unknown:
            raise InvalidSamplingError(
                f"banned names token {unknown[0]}, but the vocabulary ends at "
                f"{model.predicted - 1}."
            )
        # Prefixes and interrupts come on top of the drawn tokens: a quarter more is plenty. While
        # a step is committed, it is in the cache twice.
        thinking = team.budget * 5 // 4 + PAGE + min(team.budget, LONGEST_COMMIT)
        forks = len(team.snapshots) * (self._reserved_tokens + len(team.workers) * PAGE)
        all_views = model.max_length * len(team.workers)
        self.most_tokens = (
            min(minimum + len(team.workers) * thinking, all_views) + len(texts) * PAGE + forks
        )
        self._submitted = time.monotonic()

    def hear(self, message: Any) -> None:
        """Puts a user's note into the shared history before the next pass.

        Raises:
            InvalidMessageError: It is not a text, or is empty.
        """
        if not isinstance(message, str) or not message.strip():
            raise InvalidMessageError(f"Cannot say {message!r}: give a text that is not empty.")
        self._notes.append(message)

    def stop(self) -> None:
        """Ends the thinking before the next pass; the finisher still answers."""
        self._stopped = True
        if self._thinking is not None:
            self._thinking.skip_interrupts()

    def run(self, lease: Lease) -> Passes:
        """The session, pass by pass: the team thinks, then the finisher answers."""
        self._lease = lease
        self._thinking = thinking = Thinking(
            self.team, self.problem, lease, self._first_ids, self._emit
        )
        self._emit(
            ev.Started,
            workers=self.team.workers,
            prompt_tokens=lease.usage.prompt_tokens + len(self._first_ids),
            reused_tokens=lease.usage.reused_tokens,
            finisher=self.team.finisher,
        )
        if self.team.replies_at_once:
            self._finish_reason = "ended"
        else:
            yield from thinking.write_headers()
        while self._finish_reason is None:
            yield from self._think(thinking)
        yield from self._finish(thinking, self._finish_reason)

    def result(self, usage: Usage, error: BaseException | None, cancelled: bool) -> ev.Result:
        """Everything that the session has reached so far."""
        team, thinking, reply = self.team, self._thinking, self._reply
        passes = thinking.passes if thinking else 0
        reason: ev.FinishReason = self._finish_reason or "stopped"
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
            tokens={worker.name: worker.total_tokens for worker in workers},
            reply_tokens=0 if reply is None else reply.tokens,
            prompt_tokens=usage.prompt_tokens and usage.prompt_tokens + len(self._first_ids),
            reused_tokens=usage.reused_tokens,
            preemptions=usage.preemptions,
            interruptions=tuple(thinking.interruptions) if thinking else (),
            snapshots=tuple(self._snapshots[budget] for budget in sorted(self._snapshots)),
            unheard=(*self._unread_notes, *self._notes),
            timings=ev.Timings(
                usage.waited or None, usage.prefilled or None, self._thinking_seconds, self._seconds
            ),
            error=None if error is None else f"{type(error).__name__}: {error}",
        )
        self._emit(ev.Finished, result=result)
        return result

    @property
    def _seconds(self) -> float:
        """Seconds since submission."""
        return time.monotonic() - self._submitted

    def _emit(self, event: type[ev.Event], **fields: Any) -> None:
        passes = self._thinking.passes if self._thinking else 0
        self.events.append(event(passes, self._seconds, **fields))

    # Thinking.

    def _think(self, thinking: Thinking) -> Passes:
        """One pass of thinking, with all that belongs before and after it."""
        yield from self._read_notes(thinking)
        if self._stopped or not self._has_room():
            self._finish_reason = "stopped" if self._stopped else "length"
            return
        yield from thinking.prefill_prefixes()
        writes, commits = thinking.next_pass()
        drawn = yield BatchEntry([*writes, *self._writer_writes()], commits)
        thinking.accept(drawn[len(writes) - len(thinking.active()) : len(writes)])
        self._accept_writers(drawn[len(writes) :])
        self._finish_reason = self._reason_to_finish(thinking)
        if self._finish_reason is None:
            if not self._stopped:
                yield from thinking.begin_steps()
            self._take_snapshot(thinking)

    def _read_notes(self, thinking: Thinking) -> Passes:
        """Adds new notes to the history; notes that do not fit into the context stay unread."""
        texts: list[str] = []
        length = 0
        for text in [*self._notes]:
            size = len(text.encode(errors="replace")) + PAGE
            if self._has_room(length + size):
                texts.append(text)
                length += size
            else:
                self._notes.remove(text)
                self._unread_notes.append(text)
        if texts:
            yield from thinking.add_notes(texts)
            for _ in texts:  # only now, so that a fault does not lose them
                self._notes.popleft()

    def _has_room(self, tokens: int = 0) -> bool:
        """Whether this many more tokens leave enough room for the finisher."""
        assert self._thinking is not None
        length = self._thinking.longest_view() + tokens + self._reserved_tokens
        return length <= self._lease.model.max_length

    def _reason_to_finish(self, thinking: Thinking) -> ev.FinishReason | None:
        """Why the thinking is over, or None if it goes on."""
        if thinking.answered_by is not None:
            return "answer"
        if not thinking.active():
            return "ended"
        return "budget" if thinking.passes >= self.team.budget else None

    def _take_snapshot(self, thinking: Thinking) -> None:
        """At a snapshot's budget, lets the early finisher answer from a fork."""
        if thinking.passes in self.team.snapshots:
            _, answer = thinking.find_answer()
            if answer is None:
                self._writers.append(self._new_writer(thinking, [thinking.passes], answer=True))
            else:
                self._record_snapshot(thinking.passes, answer)

    def _record_snapshot(self, budget: int, answer: Any, text: str = "", tokens: int = 0) -> None:
        assert self._thinking is not None
        passes = min(budget, self._thinking.passes)
        self._snapshots[budget] = ev.Snapshot(budget, passes, answer, text, tokens)
        self._emit(ev.SnapshotTaken, snapshot=self._snapshots[budget])

    # The answer.

    def _finish(self, thinking: Thinking, reason: ev.FinishReason) -> Passes:
        """Writes the reply or the answer, and lets snapshots under way come to their end."""
        team = self.team
        self._thinking_seconds = self._seconds
        thinking.conclude()
        self._emit(ev.ThinkingEnded, reason=reason)
        self._answer = thinking.answer
        begun = {*self._snapshots, *(b for writer in self._writers for b in writer.budgets)}
        budgets = [budget for budget in team.snapshots if budget not in begun]
        if self._answer is not None:
            for budget in budgets:
                self._record_snapshot(budget, self._answer)
            budgets = []
        if team.finisher == "reply":
            if budgets:
                self._writers.append(self._new_writer(thinking, budgets, answer=True))
            self._reply = self._new_writer(thinking, [], answer=False)
            self._writers.append(self._reply)
        elif self._answer is None:
            self._reply = self._new_writer(thinking, budgets, answer=True)
            self._writers.append(self._reply)
        while self._writers:
            drawn = yield BatchEntry(self._writer_writes())
            self._reply_passes += 1
            self._accept_writers(drawn)

    def _writer_writes(self) -> list[Write]:
        """What the writers of snapshots and of the reply write in the next pass."""
        return [write for writer in self._writers for write in writer.writes()]

    def _accept_writers(self, drawn: Sequence[int | None]) -> None:
        """Gives the writers the tokens that they drew, and collects from those that are done."""
        tokens = [token for token in drawn if token is not None]  # first writes draw none
        for writer, token in zip([*self._writers], tokens, strict=True):
            new = writer.accept(token)
            if writer is self._reply:
                self._emit(ev.ReplyToken, token=token, text=new)
            if writer.reason is not None:
                self._writers.remove(writer)
                self._collect(writer)

    def _collect(self, writer: ReplyWriter) -> None:
        """Frees the blocks of a writer that is done, and reads the answer from its text."""
        for fork in writer.forks:
            self._lease.free(fork)
        answer = self.team.answer.extract(writer.answer_prefix + writer.text)
        for budget in writer.budgets:
            self._record_snapshot(budget, answer, writer.text, writer.tokens)
        if writer is self._reply and self._answer is None:
            self._answer = answer
            if answer is not None:
                self._emit(ev.AnswerFound, worker=None, answer=answer)

    def _new_writer(
        self, thinking: Thinking, budgets: Sequence[int], *, answer: bool
    ) -> ReplyWriter:
        """A writer that continues from the live cache, in the view of one worker.

        That is the worker who stated the answer, or else the first active one. A writer of an
        answer works on forks, so that it disturbs neither the thinking nor a reply. The tokens that
        were drawn last are not in the cache yet, so they are written along with its first token.
        The beginning of a step in which nothing was drawn is left out.
        """
        team, lease, views = self.team, self._lease, thinking.views()
        author = thinking.answered_by or [*thinking.active(), *thinking.workers][0]
        forks: dict[CacheBlock, CacheBlock] = {}
        if answer:
            changing = [lease.prompt, *(step.block for step in thinking.uncommitted)]
            changing += [worker.work for worker in thinking.workers]
            forks = {block: lease.fork(block) for block in changing}
        pending = [(step.view, step.pending_ids) for step in thinking.uncommitted]
        pending += [
            (views[worker.index], worker.pending_ids)
            for worker in thinking.workers
            if worker is not author
        ]
        first_writes = [
            Write([forks.get(block, block) for block in view], ids) for view, ids in pending if ids
        ]
        view = [forks.get(block, block) for block in views[author.index]]
        separator = steps.SEPARATOR if author.written else ""
        if answer:
            opening_ids = team.tokenizer.encode(separator + team.answer.opening.lstrip("\n"))
            banned = thinking.sampling(0, team.thinking_ids).banned
            params = SamplingParams(temperature=0, banned=banned)
            limit = team.answer.max_tokens
        else:
            opening_ids = [] if team.replies_at_once else team.closing_tokens(separator)
            params = thinking.sampling(len(team.workers), team.thinking_ids)
            used = sum(map(len, view)) + len(author.pending_ids) + len(opening_ids)
            used += sum(len(write.tokens) for write in first_writes)
            used += 0 if self._guide is None else GUIDE_OVERRUN
            limit = max(1, min(team.reply_tokens, lease.model.max_length - used))
        return ReplyWriter(
            view=view,
            pending_ids=[*author.pending_ids, *opening_ids],
            sampler=SamplerState(params),
            detokenizer=Detokenizer(team.tokenizer),
            ends=team.tokenizer.ends,
            limit=limit,
            is_complete=team.answer.complete if answer else _never,
            answer_prefix=team.answer.prefix if answer else "",
            stop=() if answer else team.stop,
            guide=None if answer else self._guide,
            vocab_size=lease.model.predicted,
            budgets=budgets,
            first_writes=first_writes,
            forks=[*forks.values()],
        )


def _never(_: str) -> bool:
    """A reply is complete only when its writer ends it."""
    return False
