"""The workers at work: what each of them writes in a pass, and what happens to the drawn tokens.

In one pass, a team of two in the combined layout writes

    one token for each worker       into its work in progress; the others see it in the same pass
    the last token of a step        into the step that has just ended, before it is committed
    the beginning of a step         `**Bob [4]:** `, and the texts of interrupts

So a step is complete when it joins the history, and no pass is spent on anything but thinking.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from hogwild_agents.engine import BatchEntry, CacheBlock, Lease, SamplerState, SamplingParams, Write
from hogwild_agents.team import events as ev
from hogwild_agents.team import steps
from hogwild_agents.team.config import TeamConfig
from hogwild_agents.team.interrupts import (
    Interrupt,
    InterruptContext,
    as_text,
    ask,
    name_of,
)
from hogwild_agents.team.layouts import TeamBlocks, Views
from hogwild_agents.team.redundancy_check import RedundancyCheck
from hogwild_agents.team.tokenizer import Detokenizer

LONG_PREFIX = 256
"""A longer beginning of a step is read in chunks first, so that the other workers do not wait."""

SEED_STRIDE = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio. Its multiples give the workers unrelated seeds."""

Passes: TypeAlias = Generator["BatchEntry | Future[Any]", Any, None]
"""A part of a session's run, as the engine drives it."""

Emit: TypeAlias = Callable[..., None]
"""Takes an event's class and its fields."""


class UncommittedStep(NamedTuple):
    """A step that has ended. The next pass writes its last tokens, then it is committed."""

    view: Sequence[CacheBlock]
    block: CacheBlock
    pending_ids: list[int]


@dataclass(slots=True, eq=False)
class Worker:
    """The state of one worker.

    Attributes:
        name: Its name.
        index: Its index in the team.
        sampler: Chooses its tokens.
        detokenizer: Turns them into text.
        work: The block that it writes to.
        pending_ids: Ids that it drew and that are not in the cache yet.
        prefix_ids: Ids with which the system begins its step, not in the cache yet.
        step_index: Number of its current step, from 1.
        text: The step so far, after the prefix.
        written: The part of `text` that the worker wrote itself.
        step_tokens: Tokens that it drew in this step.
        total_tokens: Tokens that it drew in all.
        first_pass: Forward pass of the step's first token, 0 before that.
        interrupts: Interrupts in this step, each with the index of its record.
        ended: Whether it has written its end token.
    """

    name: str
    index: int
    sampler: SamplerState
    detokenizer: Detokenizer
    work: CacheBlock
    pending_ids: list[int] = field(default_factory=list)
    prefix_ids: list[int] = field(default_factory=list)
    step_index: int = 1
    text: str = ""
    written: str = ""
    step_tokens: int = 0
    total_tokens: int = 0
    first_pass: int = 0
    interrupts: list[tuple[Interrupt, int]] = field(default_factory=list)
    ended: bool = False

    @property
    def next_ids(self) -> list[int]:
        """All ids that it writes in the next pass."""
        return self.pending_ids + self.prefix_ids


class Thinking:
    """One team thinking about one problem.

    Args:
        team: The team.
        problem: The problem as the caller gave it.
        lease: The session's memory; the prompt is in it.
        first_ids: Ids that a single worker writes before it draws its first token.
        emit: Called with an event's class and fields.

    Attributes:
        workers: The workers.
        history: Finished steps and notes, in order.
        interruptions: The interrupts that spoke, in order.
        passes: Forward passes so far.
        answer: The final answer that a finished step states, or None.
        answered_by: The worker who stated it.
        uncommitted: Steps that are committed with the next pass.
    """

    def __init__(
        self, team: TeamConfig, problem: Any, lease: Lease, first_ids: Sequence[int], emit: Emit
    ) -> None:
        self.team = team
        self.problem = problem
        self._lease = lease
        self._emit = emit
        self._headers = (lease.new_block(), lease.new_block())
        self._pauses = tuple(lease.new_block() for _ in team.workers)
        self._tokens_since = [0] * len(team.interrupts)  # since each interrupt last spoke
        self._ends = team.ends if team.may_end else frozenset[int]()
        self._views: Views | None = None
        self._interrupt_call: Future[Any] | None = None
        self._skips_interrupts = False
        self.uncommitted: list[UncommittedStep] = []
        self.history: list[ev.Step | ev.Note] = []
        self.interruptions: list[ev.Interruption] = []
        self.passes = 0
        self.answer: Any = None
        self.answered_by: Worker | None = None
        banned = team.banned - self._ends
        self.workers = [
            Worker(
                name,
                index,
                SamplerState(self.sampling(index, banned)),
                Detokenizer(team.tokenizer),
                lease.new_block(),
                pending_ids=[*first_ids],
                prefix_ids=opening_ids,
                text=team.opening(index),
            )
            for index, (name, opening_ids) in enumerate(
                zip(team.workers, team.opening_tokens(), strict=True)
            )
        ]

    def sampling(self, index: int, banned: frozenset[int]) -> SamplingParams:
        """How one stream of the team chooses: repeatably, and independently of the others."""
        params, vocab_size = self.team.sampling, self._lease.model.predicted
        seed = params.seed
        return replace(
            params,
            banned=params.banned | frozenset(token for token in banned if token < vocab_size),
            seed=None if seed is None else (seed + index * SEED_STRIDE) % 2**64,
        )

    def write_headers(self) -> Passes:
        """Writes the headers that the layout uses, and announces the first steps."""
        for worker in self.workers:
            self._emit(ev.StepBegun, worker=worker.name, index=1, text=worker.text)
        used = {block for view in self.views() for block in view}
        writes = [
            Write([self._lease.prompt, block], tokens)
            for block, tokens in zip(
                (*self._headers, *self._pauses), self.team.header_tokens(), strict=True
            )
            if block in used
        ]
        if writes:
            yield BatchEntry(writes)

    def views(self) -> Views:
        """The view of every worker, as the blocks are now."""
        if self._views is None:
            self._views = self.team.layout.arrange(
                TeamBlocks(
                    (self._lease.prompt, *(step.block for step in self.uncommitted)),
                    *self._headers,
                    self._pauses,
                    tuple(worker.work for worker in self.workers),
                )
            )
        return self._views

    def longest_view(self) -> int:
        """An upper bound for the tokens of the longest view after the next pass."""
        new = sum(len(worker.next_ids) for worker in self.workers)
        new += sum(len(step.pending_ids) for step in self.uncommitted)
        return max(sum(map(len, view)) for view in self.views()) + new

    def active(self) -> list[Worker]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if not worker.ended]

    # One pass.

    def next_pass(self) -> tuple[list[Write], list[tuple[CacheBlock, CacheBlock]]]:
        """The writes of the next pass, and the commits after it.

        The writes of active workers come last, in the order in which `accept` takes their tokens.
        """
        views = self.views()
        writes = [
            Write(step.view, step.pending_ids) for step in self.uncommitted if step.pending_ids
        ]
        writes += [
            Write(views[worker.index], worker.pending_ids)
            for worker in self.workers
            if worker.ended and worker.pending_ids
        ]
        writes += [
            Write(views[worker.index], worker.next_ids, worker.sampler) for worker in self.active()
        ]
        return writes, [(self._lease.prompt, step.block) for step in self.uncommitted]

    def accept(self, drawn: Iterable[int | None]) -> None:
        """Takes the tokens that the active workers drew in the pass that has just run."""
        self.passes += 1
        for step in self.uncommitted:
            self._lease.free(step.block)
        self._set_uncommitted([])
        views = self.views()  # before any worker of this pass ends a step
        for worker in self.workers:
            worker.pending_ids, worker.prefix_ids = [], []
        for worker, token in zip(self.active(), drawn, strict=True):
            assert token is not None
            self._accept_token(worker, token, views[worker.index])

    def _set_uncommitted(self, uncommitted: list[UncommittedStep]) -> None:
        self.uncommitted, self._views = uncommitted, None

    def _accept_token(self, worker: Worker, token: int, view: Sequence[CacheBlock]) -> None:
        """Adds a token to a worker's step, and ends the step if it is complete."""
        worker.pending_ids = [token]
        worker.total_tokens += 1
        worker.step_tokens += 1
        worker.first_pass = worker.first_pass or self.passes
        self._tokens_since = [count + 1 for count in self._tokens_since]
        worker.ended = token in self._ends
        detokenizer = worker.detokenizer
        new = detokenizer.flush() if worker.ended else detokenizer.push(token)
        worker.text += new
        worker.written += new
        self._emit(ev.Token, worker=worker.name, token=token, text=new)
        if worker.interrupts and new:
            self._read_responses(worker, worker.written)
        if worker.ended:
            worker.pending_ids = []
            if worker.text and not self.team.is_single:
                worker.pending_ids = self.team.tokenizer.encode(steps.SEPARATOR)
                worker.text += steps.SEPARATOR
        if worker.ended or ("\n" in new and steps.ends_step(worker.written, len(new))):
            self._end_step(worker, view)

    def _end_step(self, worker: Worker, view: Sequence[CacheBlock]) -> None:
        """Records a step, prepares its commit, and looks for the answer in it."""
        self._read_responses(worker, worker.written + "\n")
        step = self.step_of(worker)
        worker.interrupts = []
        worker.step_index += 1
        worker.text = worker.written = ""
        worker.step_tokens = worker.first_pass = 0
        if not step.text:
            return
        self.history.append(step)
        self._emit(ev.StepCommitted, step=step)
        if self.team.layout.commits:
            ended = UncommittedStep(view, worker.work, worker.pending_ids)
            worker.work, worker.pending_ids = self._lease.new_block(), []
            self._set_uncommitted([*self.uncommitted, ended])
        if self.answered_by is None:
            self._record_answer(worker, self.team.answer.find(step.written))

    def step_of(self, worker: Worker) -> ev.Step:
        """A record of a worker's step so far."""
        return ev.Step(
            worker.name,
            worker.step_index,
            worker.text,
            worker.written,
            worker.step_tokens,
            worker.first_pass,
            self.passes,
        )

    def prefill_prefixes(self) -> Passes:
        """Reads long beginnings of steps in chunks, before the pass that all workers share."""
        for worker in self.active():
            if len(worker.prefix_ids) > LONG_PREFIX:
                *ids, last = worker.next_ids
                yield BatchEntry([Write(self.views()[worker.index], ids)])
                worker.pending_ids, worker.prefix_ids = [last], []

    def add_notes(self, texts: Sequence[str]) -> Passes:
        """Writes a user's notes into the shared history, where all workers see them."""
        notes = [ev.Note(self.team.sanitize(text), self.passes) for text in texts]
        tokens = self.team.tokenizer.encode("".join(map(str, notes)))
        yield BatchEntry([Write([self._lease.prompt], tokens)])
        # Steps that have just ended are committed with the next pass, so they follow the notes.
        end = len(self.history) - len(self.uncommitted)
        self.history[end:end] = notes
        for note in notes:
            self._emit(ev.NoteRead, note=note)

    # The beginning of steps, and interrupts.

    def begin_steps(self) -> Passes:
        """Begins a step for every worker that has just ended one; interrupts may speak."""
        for worker in self.active():
            if worker.step_tokens:
                continue
            texts: list[str] = []
            for interrupt, since in zip(self.team.interrupts, self._tokens_since, strict=True):
                context = self._context(worker, since)
                if type(interrupt) is RedundancyCheck:  # our own code, and quick
                    texts.append(interrupt(context) or "")
                else:
                    text = as_text(interrupt, (yield from self._call(interrupt, context)))
                    is_question = text == getattr(interrupt, "question", None)
                    texts.append(text if is_question else self.team.sanitize(text))
            if self._skips_interrupts:  # the thinking ends, so this step never begins
                return
            for i, text in enumerate(texts):
                if text:
                    self._tokens_since[i] = 0
                    self._record_interruption(worker, self.team.interrupts[i], text)
                    worker.text += text
            prefix = "" if self.team.is_single else steps.prefix(worker.name, worker.step_index)
            worker.prefix_ids = self.team.tokenizer.encode(prefix + worker.text)
            self._emit(ev.StepBegun, worker=worker.name, index=worker.step_index, text=worker.text)

    def skip_interrupts(self) -> None:
        """Stops waiting for interrupts, as the thinking is to end. Called from any thread."""
        self._skips_interrupts = True
        if self._interrupt_call is not None:
            self._interrupt_call.cancel()

    def _call(
        self, interrupt: Interrupt, context: InterruptContext
    ) -> Generator[Future[Any], Any, Any]:
        """What an interrupt returns; None once interrupts are skipped."""
        self._interrupt_call = ask(interrupt, context)
        if self._skips_interrupts:
            self._interrupt_call.cancel()
        try:
            return (yield self._interrupt_call)
        except CancelledError:
            return None

    def _context(self, worker: Worker, since: int) -> InterruptContext:
        visible = set(self.views()[worker.index])
        others = {
            other.name: other.text if other.work in visible else ""
            for other in self.workers
            if other is not worker
        }
        return InterruptContext(
            worker=worker.name,
            index=worker.step_index,
            workers=self.team.workers,
            problem=self.problem,
            history=tuple(self.history),
            others=others,
            passes=self.passes,
            budget=self.team.budget,
            tokens=sum(each.total_tokens for each in self.workers),
            since=since,
        )

    def _record_interruption(self, worker: Worker, interrupt: Interrupt, text: str) -> None:
        record = ev.Interruption(
            name_of(interrupt), worker.name, worker.step_index, self.passes, text
        )
        worker.interrupts.append((interrupt, len(self.interruptions)))
        self.interruptions.append(record)
        self._emit(ev.InterruptAsked, interruption=record)

    def _read_responses(self, worker: Worker, followed: str) -> None:
        """Records how a worker responds to the interrupts in its step, once that is clear."""
        for interrupt, index in worker.interrupts:
            record = self.interruptions[index]
            read: Callable[[str], Any] = getattr(interrupt, "read", _read_nothing)
            answer = read(followed) if record.answer is None else record.answer
            self.interruptions[index] = replace(record, answer=answer, followed=worker.written)
            if answer is not None and record.answer is None:
                self._emit(ev.InterruptAnswered, interruption=self.interruptions[index])

    # The answer.

    def find_answer(self) -> tuple[Worker | None, Any]:
        """The worker who has stated the final answer, and the answer; unfinished steps count."""
        if self.answered_by is not None:
            return self.answered_by, self.answer
        for worker in reversed(self.workers):
            answer = self.team.answer.find(worker.written) if worker.written else None
            if answer is not None:
                return worker, answer
        return None, None

    def conclude(self) -> None:
        """Accepts an answer from an unfinished step, which will not be finished any more."""
        worker, answer = self.find_answer()
        if worker is not None and self.answered_by is None:
            self._record_answer(worker, answer)

    def _record_answer(self, worker: Worker, answer: Any) -> None:
        if answer is not None:
            self.answer, self.answered_by = answer, worker
            self._emit(ev.AnswerFound, worker=worker.name, answer=answer)


def _read_nothing(_: str) -> None:
    """Stands in for the `read` of interrupts that have none."""
