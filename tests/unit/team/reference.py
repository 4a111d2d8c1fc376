"""A reference team made of lists of ids and texts: no blocks, no engine, no reuse.

For every token, the view of a stream is put together anew, as the design defines it. The tokens
come from a script, which is a function of that view alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hogwild_agents.team import (
    InterruptContext,
    Interruption,
    Note,
    RedundancyCheck,
    Snapshot,
    Step,
)
from hogwild_agents.team.config import TeamConfig
from hogwild_agents.team.interrupts import name_of
from hogwild_agents.team.steps import OTHERS_HEADER, OWN_HEADER, PAUSE, REPLY_HEADER, ends_step
from tests.unit.team.scripted import Ids, Script


def says_yes(text: str) -> bool | None:
    """How a worker answers a redundancy check; None if it does not, or not yet."""
    match = re.match(r"\W*(yes|no)\W", text)
    return None if match is None else match[1] == "yes"


@dataclass
class Worker:
    """One worker: its ids in the cache, and its step as text."""

    name: str
    place: int
    prefix_ids: list[int]
    """Ids before its next token: a step's beginning, or a lone worker's prompt end."""
    inserted: str
    """Text that the system wrote into the step."""
    finished_ids: list[int] = field(default_factory=list)
    """Ids of finished steps, if the layout does not move them to the history."""
    step_ids: list[int] = field(default_factory=list)
    """Ids of its step, with the prefix."""
    drawn: list[int] = field(default_factory=list)
    """The ids of the step that it drew."""
    index: int = 1
    tokens: int = 0
    total: int = 0
    begun: int = 0
    written: str = ""
    after: str = ""
    """Text that the system added after the step."""
    ended: bool = False

    @property
    def work(self) -> list[int]:
        """All ids that others may see before they are in the history."""
        return self.finished_ids + self.step_ids


@dataclass
class Written:
    """The text of one writer of an answer or a reply."""

    began: int
    """Passes of thinking before its first token."""
    text: str = ""
    tokens: int = 0
    reason: str = "length"
    views: list[Ids] = field(default_factory=list)


class ReferenceTeam:
    """A session from its prompt to its end.

    Args:
        team: The team.
        problem: The problem as the caller gave it.
        prompt: All ids before the first id of the first worker.
        script: From a view to the next token.
        said: Notes, each with the pass after which it is read.
        stop_after: The pass after which the thinking stops on request.
        stop_begun: How many workers had begun another step by then.
        cut_after: The pass after which the session ended at once, by a fault or a cancel.

    Attributes:
        views: For each pass of thinking, the view of each worker.
    """

    def __init__(
        self,
        team: TeamConfig,
        problem: Any,
        prompt: Sequence[int],
        script: Script,
        *,
        said: Sequence[tuple[int, str]] = (),
        stop_after: int | None = None,
        stop_begun: int = 0,
        cut_after: int | None = None,
    ) -> None:
        self.team, self.problem, self.script = team, problem, script
        self.encode, self.decode = team.tokenizer.encode, team.tokenizer.decode
        self.said, self.cut_after = [*said], cut_after
        self.stop_after, self.stop_begun = stop_after, stop_begun
        self.alone = len(team.workers) == 1
        self.committed = [*prompt]
        self.history: list[Step | Note] = []
        self.fresh: list[list[int]] = []  # ids of the steps that ended in the last pass
        self.passes = 0
        self.reason: str | None = None
        self.answer: Any = None
        self.finder: Worker | None = None
        self.asked: list[
            tuple[Any, Worker]
        ] = []  # beside each interruption, whose and in whose step
        self.interruptions: list[Interruption] = []
        self.contexts: list[InterruptContext] = []
        self.since = [0 for _ in team.interrupts]
        self.views: list[list[Ids]] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.written: list[Written] = []
        self.reply: Written | None = None
        self.workers = []
        for place, name in enumerate(team.workers):
            opening = "" if self.alone else team.prompt.opening(team.workers, place)
            prefix = "" if self.alone else f"**{name} [1]:** "
            self.workers.append(Worker(name, place, self.encode(prefix + opening), opening))
        if self.alone:  # it goes on from the prompt's last token, so notes come before that
            self.workers[0].step_ids.append(self.committed.pop())
        self._run()
        for worker in self.workers:
            if not worker.ended:
                self._close_interruptions(worker, "")

    # Views.

    def sees(self, me: Worker) -> list[int]:
        """The view of a worker, as ids."""
        others = [w for w in self.workers if w is not me]
        paused = [token for w in others for token in [*w.work, *self.encode(f"{PAUSE}\n\n")]]
        match self.team.layout.name:
            case "solo" | "interleaved":
                between = []
            case "contiguous" | "newest_last":
                between = paused
            case "combined":
                headers = [self.encode(f"{h}\n\n") for h in (OTHERS_HEADER, OWN_HEADER)]
                between = [*headers[0], *paused, *headers[1]]
            case "neighbour":
                between = self.workers[(me.place + 1) % len(self.workers)].work
        return [*self.committed, *between, *me.work]

    # Thinking.

    def _run(self) -> None:
        if self.alone and self.team.finisher == "reply" and self.team.tokenizer.thinking is None:
            self.reason = "ended"
        while self.reason is None:
            self._read_notes()
            if self.passes == self.stop_after:
                self.reason = "stopped"
                break
            if self.passes == self.cut_after:
                return
            self._pass()
            self.reason = self._verdict()
            if self.reason is None:
                self._begin_steps()
                if self.passes in self.team.snapshots:
                    self._snapshot([self.passes])
        self._finish()

    def _read_notes(self) -> None:
        """A note precedes steps that ended in the last pass, as these are not committed yet."""
        while self.said and self.said[0][0] <= self.passes:
            note = Note(self.team.sanitize(self.said.pop(0)[1]), self.passes)
            text = f"**Note from the user:** {note.text}\n\n"
            self.history.insert(len(self.history) - len(self.fresh), note)
            at = len(self.committed) - sum(map(len, self.fresh))
            self.committed[at:at] = self.encode(text)

    def _pass(self) -> None:
        self.passes += 1
        self.fresh = []
        awake = [worker for worker in self.workers if not worker.ended]
        for worker in awake:
            worker.step_ids += worker.prefix_ids
            worker.prefix_ids = []
        views = [tuple(self.sees(worker)) for worker in awake]
        self.views.append(views)
        for worker, token in zip(awake, [self._draw(view) for view in views], strict=True):
            self._take(worker, token)

    def _draw(self, seen: Ids) -> int:
        token = self.script(seen)
        assert token is not None
        return token

    def _take(self, worker: Worker, token: int) -> None:
        worker.total += 1
        worker.tokens += 1
        worker.begun = worker.begun or self.passes
        self.since = [count + 1 for count in self.since]
        before = worker.written
        if self.team.may_end and token in self.team.ends:
            worker.ended = True
            worker.written = self.decode(worker.drawn)
            if (worker.inserted or worker.written) and not self.alone:
                worker.after = "\n\n"
                worker.step_ids += self.encode("\n\n")
        else:
            worker.step_ids.append(token)
            worker.drawn.append(token)
            worker.written = self.decode(worker.drawn).rstrip("\ufffd")
        new = worker.written[len(before) :]
        if worker.ended or (new and ends_step(worker.written, len(new))):
            self._end_step(worker)

    def _step(self, worker: Worker) -> Step:
        text = worker.inserted + worker.written + worker.after
        return Step(
            worker.name,
            worker.index,
            text,
            worker.written,
            worker.tokens,
            worker.begun,
            self.passes,
        )

    def _end_step(self, worker: Worker) -> None:
        self._close_interruptions(worker, "\n")
        step = self._step(worker)
        if step.text:
            self.history.append(step)
            answer = self.team.answer.find(step.written)
            if answer is not None and self.finder is None:
                self.answer, self.finder = answer, worker
            if self.team.layout.commits:
                self.committed += worker.step_ids
                self.fresh.append(worker.step_ids)
            else:
                worker.finished_ids += worker.step_ids
            worker.step_ids = []
        worker.drawn = []
        worker.inserted = worker.written = worker.after = ""
        worker.tokens = worker.begun = 0
        worker.index += 1

    def _verdict(self) -> str | None:
        if self.finder is not None:
            return "answer"
        if all(worker.ended for worker in self.workers):
            return "ended"
        return "budget" if self.passes == self.team.budget else None

    # Interrupts.

    def _begin_steps(self) -> None:
        idle = [worker for worker in self.workers if not worker.ended and not worker.tokens]
        if self.passes == self.stop_after:
            idle = idle[: self.stop_begun]
        for worker in idle:
            for which, interrupt in enumerate(self.team.interrupts):
                context = self._context(worker, self.since[which])
                if isinstance(interrupt, RedundancyCheck):
                    said = interrupt.question if self.since[which] >= interrupt.every else ""
                else:
                    self.contexts.append(context)
                    said = self.team.sanitize(interrupt(context) or "")
                if said:
                    self.since[which] = 0
                    record = Interruption(
                        name_of(interrupt), worker.name, worker.index, self.passes, said
                    )
                    self.asked.append((interrupt, worker))
                    self.interruptions.append(record)
                    worker.inserted += said
            prefix = "" if self.alone else f"**{worker.name} [{worker.index}]:** "
            worker.prefix_ids = self.encode(prefix + worker.inserted)

    def _context(self, me: Worker, since: int) -> InterruptContext:
        visible = {
            "solo": [],
            "interleaved": [],
            "neighbour": [(me.place + 1) % len(self.workers)],
        }.get(self.team.layout.name, range(len(self.workers)))
        return InterruptContext(
            worker=me.name,
            index=me.index,
            workers=self.team.workers,
            problem=self.problem,
            history=tuple(self.history),
            others={
                w.name: w.inserted + w.written if w.place in visible else ""
                for w in self.workers
                if w is not me
            },
            passes=self.passes,
            budget=self.team.budget,
            tokens=sum(w.total for w in self.workers),
            since=since,
        )

    def _close_interruptions(self, worker: Worker, after: str) -> None:
        """Records how a worker responded to interrupts; `after` follows the text that it wrote."""
        for at, (interrupt, asked) in enumerate(self.asked):
            record = self.interruptions[at]
            if asked is worker and record.index == worker.index:
                answer = None
                if isinstance(interrupt, RedundancyCheck):
                    answer = says_yes(worker.written + after)
                self.interruptions[at] = replace(record, answer=answer, followed=worker.written)

    # Answers.

    def _stated(self) -> tuple[Any, Worker | None]:
        """The answer that a worker has stated, also in an unfinished step."""
        if self.finder is not None:
            return self.answer, self.finder
        for worker in reversed(self.workers):
            answer = self.team.answer.find(worker.written) if worker.written else None
            if answer is not None:
                return answer, worker
        return None, None

    def _author(self) -> Worker:
        awake = [worker for worker in self.workers if not worker.ended]
        return self.finder or [*awake, *self.workers][0]

    def _write(self, author: Worker, opening: list[int], limit: int, answers: bool) -> Written:
        """The text of a writer that continues from a worker's view."""
        written = Written(self.passes)
        seen = [*self.sees(author), *opening]
        drawn: list[int] = []
        while written.tokens < limit:
            written.views.append(tuple(seen))
            token = self._draw(tuple(seen))
            written.tokens += 1
            if token in self.team.tokenizer.ends:
                written.reason = "stop"
                written.text = self.decode(drawn)
                break
            drawn.append(token)
            seen.append(token)
            written.text = self.decode(drawn)
            if answers and self.team.answer.complete(written.text.rstrip("\ufffd")):
                written.reason = "stop"
                written.text = written.text.rstrip("\ufffd")
                break
        self.written.append(written)
        return written

    def _write_answer(self) -> Written:
        author = self._author()
        between = "\n\n" if author.written else ""
        opening = self.encode(between + self.team.answer.opening.lstrip("\n"))
        return self._write(author, opening, self.team.answer.max_tokens, answers=True)

    def _snapshot(self, budgets: Sequence[int], written: Written | None = None) -> None:
        stated, _ = self._stated()
        text, tokens = "", 0
        if stated is None and budgets:
            written = written or self._write_answer()
            text, tokens = written.text, written.tokens
            stated = self.team.answer.extract(self.team.answer.prefix + text)
        for budget in budgets:
            self.snapshots[budget] = Snapshot(
                budget, min(budget, self.passes), stated, text, tokens
            )

    def _finish(self) -> None:
        self.answer, self.finder = self._stated()
        left = [b for b in self.team.snapshots if b not in self.snapshots]
        if self.team.finisher == "reply":
            self._snapshot(left)
            author = self._author()
            between = "\n\n" if author.written else ""
            opening = self.encode(between + REPLY_HEADER + "\n\n")
            if self.team.tokenizer.thinking is not None:
                mark = self.team.tokenizer.thinking_ids[1]
                opening = [*self.encode(between), mark, *self.encode("\n\n")]
            elif self.alone:
                opening = []
            self.reply = self._write(author, opening, self.team.reply_tokens, answers=False)
        elif self.answer is None:
            self.reply = self._write_answer()
            self._snapshot(left, self.reply)
        else:
            self._snapshot(left)
        if self.reply is not None and self.answer is None:
            prefix = self.team.answer.prefix if self.team.finisher == "answer" else ""
            self.answer = self.team.answer.extract(prefix + self.reply.text)

    # Results.

    @property
    def unfinished(self) -> tuple[Step, ...]:
        """The steps under way."""
        steps = [self._step(worker) for worker in self.workers]
        return tuple(step for step in steps if step.text)

    @property
    def reply_passes(self) -> int:
        """Passes until the last writer is done, after the last pass of thinking."""
        last = max((w.began + w.tokens for w in self.written), default=0)
        return max(0, last - self.passes)
