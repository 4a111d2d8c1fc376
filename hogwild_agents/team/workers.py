"""The workers at work: who writes what in a pass, and what becomes of the tokens.

A pass of a team of two in the combined layout writes

    one token for each worker       into its work in progress, seen by the others in the same pass
    the last token of a step        into the step that has just ended, before it is committed
    the beginning of a step         `**Bob [4]:** `, and what interrupts say

so a step is whole when it joins the history, and no pass is spent on anything but thinking.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from hogwild_agents.engine import BatchEntry, CacheBlock, Lease, SamplerState, SamplingParams, Write
from hogwild_agents.team import events as ev
from hogwild_agents.team import steps
from hogwild_agents.team.interrupts import (
    Interrupt,
    InterruptContext,
    RedundancyCheck,
    as_text,
    ask,
    name_of,
)
from hogwild_agents.team.layouts import TeamBlocks, Views
from hogwild_agents.team.tokenizer import Reader

if TYPE_CHECKING:
    from hogwild_agents.team.team import Team

LONG = 256
"""Tokens of a step's beginning that are read in chunks first, so that nobody else has to wait."""

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: multiples of it make seeds that have nothing in common."""

Running: TypeAlias = Generator["BatchEntry | Future[Any]", Any, None]
Tell: TypeAlias = Callable[..., None]


class Closing(NamedTuple):
    """A step that has ended and is committed with the next pass, which writes its last tokens."""

    view: Sequence[CacheBlock]
    block: CacheBlock
    owed: list[int]


@dataclass(slots=True, eq=False)
class Worker:
    """One worker.

    Attributes:
        name: Its name.
        place: Its index in the team.
        sampler: Chooses its tokens.
        reader: Turns them into text.
        work: The block that it writes to.
        owed: Ids that it drew and that are not in the cache yet.
        lead: Ids with which the system begins its step, not in the cache yet.
        index: Number of its step.
        text: The step so far, after the prefix.
        written: What of it the worker wrote.
        tokens: Tokens that it drew in this step.
        total: Tokens that it drew in all.
        begun: Forward pass of the step's first token.
        asked: Interrupts in this step, each with its place among the records.
        ended: Whether it has nothing more to say.
    """

    name: str
    place: int
    sampler: SamplerState
    reader: Reader
    work: CacheBlock
    owed: list[int] = field(default_factory=list)
    lead: list[int] = field(default_factory=list)
    index: int = 1
    text: str = ""
    written: str = ""
    tokens: int = 0
    total: int = 0
    begun: int = 0
    asked: list[tuple[Interrupt, int]] = field(default_factory=list)
    ended: bool = False

    @property
    def pending(self) -> list[int]:
        """All that it writes in the next pass."""
        return self.owed + self.lead


class Thinking:
    """The thinking of one team about one problem.

    Args:
        team: Who thinks.
        problem: As it was given.
        lease: The session's memory; the prompt is in it.
        first: Ids that a worker alone has still to write before it draws.
        tell: Called with an event's class and fields.

    Attributes:
        workers: The workers.
        history: Finished steps and notes, in order.
        interruptions: The interrupts that spoke.
        passes: Forward passes so far.
        answer: The final answer that was found in a finished step, or None.
        finder: Who stated it.
        closing: Steps that are committed with the next pass.
    """

    def __init__(
        self, team: Team, problem: Any, lease: Lease, first: Sequence[int], tell: Tell
    ) -> None:
        self.team = team
        self.problem = problem
        self._lease = lease
        self._tell = tell
        self._alone = len(team.workers) == 1
        self._headers = (lease.new_block(), lease.new_block())
        self._pauses = tuple(lease.new_block() for _ in team.workers)
        self._since = [0] * len(team.interrupts)
        self._ends = team.ends if team.may_end else frozenset[int]()
        self._arranged: Views | None = None
        self._asking: Future[Any] | None = None
        self._hurried = False
        self.closing: list[Closing] = []
        self.history: list[ev.Step | ev.Note] = []
        self.interruptions: list[ev.Interruption] = []
        self.passes = 0
        self.answer: Any = None
        self.finder: Worker | None = None
        banned = team.banned - self._ends
        self.workers = [
            Worker(
                name,
                place,
                SamplerState(self.sampling(place, banned)),
                Reader(team.tokenizer),
                lease.new_block(),
                owed=[*first],
                lead=opening,
                text=team.opening(place),
            )
            for place, (name, opening) in enumerate(
                zip(team.workers, team.opening_tokens(), strict=True)
            )
        ]

    def sampling(self, place: int, banned: frozenset[int]) -> SamplingParams:
        """How the stream in a place of the team chooses: repeatably, and like no other."""
        base, columns = self.team.sampling, self._lease.model.predicted
        return replace(
            base,
            banned=base.banned | frozenset(token for token in banned if token < columns),
            seed=None if base.seed is None else (base.seed + place * GOLDEN) % 2**64,
        )

    def begin(self) -> Running:
        """Writes the headers that the layout uses."""
        for worker in self.workers:
            self._tell(ev.StepBegun, worker=worker.name, index=1, text=worker.text)
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
        """Every worker's view as the blocks lie now."""
        if self._arranged is None:
            self._arranged = self.team.layout.arrange(
                TeamBlocks(
                    (self._lease.prompt, *(step.block for step in self.closing)),
                    *self._headers,
                    self._pauses,
                    tuple(worker.work for worker in self.workers),
                )
            )
        return self._arranged

    def longest(self) -> int:
        """Tokens in the longest view after the next pass, at most."""
        coming = sum(len(worker.pending) for worker in self.workers)
        coming += sum(len(step.owed) for step in self.closing)
        return max(sum(map(len, view)) for view in self.views()) + coming

    def turn(self) -> tuple[list[Write], list[tuple[CacheBlock, CacheBlock]]]:
        """What all write in the next pass, and what is committed after it.

        The workers' writes come last, in the order in which `take` expects their tokens.
        """
        views = self.views()
        writes = [Write(step.view, step.owed) for step in self.closing if step.owed]
        writes += [Write(views[w.place], w.owed) for w in self.workers if w.ended and w.owed]
        writes += [Write(views[w.place], w.pending, w.sampler) for w in self.awake()]
        return writes, [(self._lease.prompt, step.block) for step in self.closing]

    def awake(self) -> list[Worker]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if not worker.ended]

    def take(self, drawn: Iterable[int | None]) -> None:
        """Hands out the tokens that the workers drew."""
        self.passes += 1
        for step in self.closing:
            self._lease.free(step.block)
        self._rearrange(closing=[])
        before = self.views()  # as all of them saw it, whoever ends a step now
        for worker in self.workers:
            worker.owed, worker.lead = [], []
        for worker, token in zip(self.awake(), drawn, strict=True):
            assert token is not None
            self._take_token(worker, token, before[worker.place])

    def _rearrange(self, closing: list[Closing]) -> None:
        self.closing, self._arranged = closing, None

    def _take_token(self, worker: Worker, token: int, view: Sequence[CacheBlock]) -> None:
        """Adds a token to a worker's step, and ends the step where it ends."""
        worker.owed = [token]
        worker.total += 1
        worker.tokens += 1
        worker.begun = worker.begun or self.passes
        self._since = [count + 1 for count in self._since]
        worker.ended = token in self._ends
        new = worker.reader.flush() if worker.ended else worker.reader.push(token)
        worker.text += new
        worker.written += new
        self._tell(ev.Token, worker=worker.name, token=token, text=new)
        if worker.asked and new:
            self._read_answers(worker, worker.written)
        if worker.ended:
            worker.owed = []
            if worker.text and not self._alone:
                worker.owed = self.team.tokenizer.encode(steps.SEPARATOR)
                worker.text += steps.SEPARATOR
        if worker.ended or ("\n" in new and steps.ends_step(worker.written, len(new))):
            self._end_step(worker, view)

    def _end_step(self, worker: Worker, view: Sequence[CacheBlock]) -> None:
        """Records a step, looks for the answer in it, and lays it down to be committed."""
        self._read_answers(worker, worker.written + "\n")
        step = self.step_of(worker)
        worker.asked = []
        worker.index += 1
        worker.text = worker.written = ""
        worker.tokens = worker.begun = 0
        if not step.text:
            return
        self.history.append(step)
        self._tell(ev.StepCommitted, step=step)
        if self.team.layout.commits:
            closing = Closing(view, worker.work, worker.owed)
            worker.work, worker.owed = self._lease.new_block(), []
            self._rearrange([*self.closing, closing])
        if self.finder is None:
            self._note_answer(worker, self.team.answer.found(step.written))

    def _note_answer(self, worker: Worker, answer: Any) -> None:
        if answer is not None:
            self.answer, self.finder = answer, worker
            self._tell(ev.AnswerFound, worker=worker.name, answer=answer)

    def step_of(self, worker: Worker) -> ev.Step:
        """A worker's step so far, as a record."""
        return ev.Step(
            worker.name,
            worker.index,
            worker.text,
            worker.written,
            worker.tokens,
            worker.begun,
            self.passes,
        )

    def begin_steps(self) -> Running:
        """Begins a step for every worker that has just ended one; interrupts may speak."""
        for worker in self.awake():
            if worker.tokens:
                continue
            said: list[str] = []
            for interrupt, since in zip(self.team.interrupts, self._since, strict=True):
                context = self._context(worker, since)
                if type(interrupt) is RedundancyCheck:  # it is quick, and nobody's own code
                    said.append(interrupt(context) or "")
                else:
                    text = as_text(interrupt, (yield from self._ask(interrupt, context)))
                    own = text == getattr(interrupt, "question", None)
                    said.append(text if own else self.team.disguise(text))
            if self._hurried:  # there will be no such step
                return
            for which, text in enumerate(said):
                if text:
                    self._since[which] = 0
                    self._record(worker, self.team.interrupts[which], text)
                    worker.text += text
            before = "" if self._alone else steps.prefix(worker.name, worker.index)
            worker.lead = self.team.tokenizer.encode(before + worker.text)
            self._tell(ev.StepBegun, worker=worker.name, index=worker.index, text=worker.text)

    def _ask(
        self, interrupt: Interrupt, context: InterruptContext
    ) -> Generator[Future[Any], Any, Any]:
        """What an interrupt says; None if there is no time left to wait for it."""
        self._asking = ask(interrupt, context)
        if self._hurried:
            self._asking.cancel()
        try:
            return (yield self._asking)
        except CancelledError:
            return None

    def hurry(self) -> None:
        """Waits for no interrupt any more: the thinking is to end; from any thread."""
        self._hurried = True
        if self._asking is not None:
            self._asking.cancel()

    def read_ahead(self) -> Running:
        """Reads long beginnings of steps alone, in chunks, before the pass that all share."""
        for worker in self.awake():
            if len(worker.lead) > LONG:
                *most, last = worker.pending
                yield BatchEntry([Write(self.views()[worker.place], most)])
                worker.owed, worker.lead = [last], []

    def read_notes(self, texts: Sequence[str]) -> Running:
        """Puts what a user says into the shared history, seen by all from then on."""
        notes = [ev.Note(self.team.disguise(text), self.passes) for text in texts]
        tokens = self.team.tokenizer.encode("".join(map(str, notes)))
        yield BatchEntry([Write([self._lease.prompt], tokens)])
        # Steps that have just ended are committed with the next pass, so they come after it.
        end = len(self.history) - len(self.closing)
        self.history[end:end] = notes
        for note in notes:
            self._tell(ev.NoteRead, note=note)

    def stated(self) -> tuple[Worker | None, Any]:
        """Who has stated the final answer, maybe in a step under way, and the answer; or None."""
        if self.finder is not None:
            return self.finder, self.answer
        for worker in reversed(self.workers):
            answer = self.team.answer.found(worker.written) if worker.written else None
            if answer is not None:
                return worker, answer
        return None, None

    def conclude(self) -> None:
        """Takes an answer that stands in a step under way: nobody will finish it."""
        worker, answer = self.stated()
        if worker is not None and self.finder is None:
            self._note_answer(worker, answer)

    def _context(self, worker: Worker, since: int) -> InterruptContext:
        seen = set(self.views()[worker.place])
        others = {w.name: w.text if w.work in seen else "" for w in self.workers if w is not worker}
        return InterruptContext(
            worker=worker.name,
            index=worker.index,
            workers=self.team.workers,
            problem=self.problem,
            history=tuple(self.history),
            others=others,
            passes=self.passes,
            budget=self.team.budget,
            tokens=sum(w.total for w in self.workers),
            since=since,
        )

    def _record(self, worker: Worker, interrupt: Interrupt, said: str) -> None:
        record = ev.Interruption(name_of(interrupt), worker.name, worker.index, self.passes, said)
        worker.asked.append((interrupt, len(self.interruptions)))
        self.interruptions.append(record)
        self._tell(ev.InterruptAsked, interruption=record)

    def _read_answers(self, worker: Worker, followed: str) -> None:
        """Notes how a worker answers the interrupts in its step, as soon as that is clear."""
        for interrupt, place in worker.asked:
            record = self.interruptions[place]
            read: Callable[[str], Any] = getattr(interrupt, "read", _understands_nothing)
            answer = read(followed) if record.answer is None else record.answer
            self.interruptions[place] = replace(record, answer=answer, followed=worker.written)
            if answer is not None and record.answer is None:
                self._tell(ev.InterruptAnswered, interruption=self.interruptions[place])


def _understands_nothing(_: str) -> None:
    """How interrupts without a `read` read what followed them."""
