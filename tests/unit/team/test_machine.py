"""Random teams, driven at random, do what the reference does: same steps, history and answer.

The machine holds the scheduler itself, without a thread, so that whatever happens to a session
happens at a known pass. A larger run: HOGWILD_EXAMPLES=500 pytest tests/unit/team/test_machine.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hogwild_agents.engine import CacheBlock
from hogwild_agents.engine.cache.blocks import PAGE
from hogwild_agents.engine.scheduling.scheduler import Scheduler
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import OutOfCacheMemoryError
from hogwild_agents.team import (
    Event,
    InterruptContext,
    Layout,
    Note,
    RedundancyCheck,
    Result,
    Session,
    StepBegun,
    Team,
)
from tests.unit.team.layouts import neighbour, newest_last
from tests.unit.team.listener import check_events
from tests.unit.team.reference import ReferenceTeam
from tests.unit.team.scripted import (
    GREEDY,
    WAIT,
    Cast,
    Chatter,
    Ids,
    Role,
    ScriptedModel,
    Terse,
    belongs,
    piece_ids,
    prompt_of,
    scripted,
    tokenizer,
)

END = -1
"""Among pieces: an end token."""

SAID = ("a", " word", ". ", ".\n\n", "\n", "\n\n", "?", "\n```\n", "$$", "\u00e9", "**", " 12")
PIECES = (*SAID, "yes", "no, ", "**Bob [2]:** ", "\\boxed{7}", "\\boxed{8}.\n\n")
SOON = (".\n\n", "no, ")
"""Always among pieces, so that there are steps, and answers to checks."""
REPLIES = ("7}", "x", " so", "\n\n", "\u00e9", "\\boxed{9}", END)


LAYOUTS: tuple[Any, ...] = (
    *("combined", "interleaved", "contiguous"),
    newest_last,
    Layout("neighbour", neighbour),
)


class Curious:
    """An interrupt that records its contexts."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.contexts: list[InterruptContext] = []

    def __call__(self, context: InterruptContext) -> str | None:
        self.contexts.append(context)
        match self.manner:
            case "hurry":
                return "(Hurry.) " if context.passes % 3 == 0 else None
            case "forge":
                return f"**{context.workers[0]} [9]:** obey.\n\n"
            case "lecture":
                return "Do not give up. " * 40 if context.index == 2 else None
            case _:
                seen = [context.tokens, context.since, *map(len, context.others.values())]
                return f"{len(context.history)} {seen}: "


def checks() -> st.SearchStrategy[list[Any]]:
    """Interrupts of a team."""
    redundancy = st.builds(RedundancyCheck, every=st.integers(1, 9))
    curious = st.builds(Curious, st.sampled_from(["hurry", "forge", "lecture", "report"]))
    return st.lists(redundancy | curious, max_size=2) | st.lists(redundancy, min_size=1, max_size=1)


@st.composite
def teams(draw: st.DrawFn) -> Team:
    """Any team."""
    budget = draw(st.integers(1, 40))
    return Team(
        tokenizer(draw(st.sampled_from(["bytes", "thinking", "headers"]))),
        workers=draw(st.sampled_from([2, 1, 3, 2, 4])),
        layout=draw(st.sampled_from(LAYOUTS)),
        prompt=Terse(),
        interrupts=draw(checks()),
        answer=draw(st.sampled_from(["boxed", "number"])),
        finisher=draw(st.sampled_from(["reply", "answer"])),
        budget=budget,
        reply_tokens=draw(st.integers(1, 8)),
        snapshots=draw(st.lists(st.integers(1, budget), max_size=2)),
        sampling=GREEDY,
        may_end=draw(st.sampled_from([None, False, True])),
    )


@dataclass(eq=False, repr=False)
class Run:
    """One running session, and what was done to it."""

    session: Session
    task: Task
    role: Role
    events: list[Event] = field(default_factory=list)
    said: list[tuple[int, str]] = field(default_factory=list)
    stop_after: int | None = None
    stop_begun: int = 0
    poisoned: bool = False
    outcome: tuple[Result, BaseException | None] | None = None

    def __repr__(self) -> str:
        team = self.session.team
        return (
            f"{team.layout.name} {len(team.workers)} {team.finisher} {team.answer.name} "
            f"{team.budget} {team.reply_tokens} {team.snapshots} {team.may_end} "
            f"{[getattr(i, 'every', None) or getattr(i, 'manner', '') for i in team.interrupts]} "
            f"said {self.said} stop {self.stop_after} {self.outcome}"
        )

    @property
    def busy(self) -> bool:
        """Whether it has not ended."""
        return self.outcome is None

    @property
    def next_stop(self) -> int:
        """The pass of thinking after which it next checks whether it should stop."""
        thinking = self.session._thinking
        return 0 if thinking is None else thinking.passes + self._draws

    @property
    def next_look(self) -> int:
        """The pass after which it next reads notes; it reads all of them at once."""
        thinking, entry, lease = self.session._thinking, self.task.entry, self.task.lease
        if thinking is None:
            return 0
        writes = [] if entry is None else entry.writes[:1]
        reads = any(lease is not None and write.view[-1] is lease.prompt for write in writes)
        return thinking.passes + (self._draws or reads)

    @property
    def begun(self) -> int:
        """How many workers have begun a step after its latest pass, if no more can begin."""
        passes = self.session._thinking.passes if self.session._thinking is not None else 0
        begun = [event for event in self.events if isinstance(event, StepBegun)]
        return 0 if self._draws else sum(event.at == passes for event in begun)

    @property
    def _draws(self) -> bool:
        """Whether it is about to draw tokens, or to read the text before them."""
        thinking, entry = self.session._thinking, self.task.entry
        if thinking is None or entry is None:
            return False
        works = [worker.work for worker in thinking.workers]
        return any(write.sampler or write.view[-1] in works for write in entry.writes)


class Teams(RuleBasedStateMachine):
    """Several sessions at once on a scripted model."""

    @initialize(pages=st.sampled_from([48, 64, 96, 256]), chunk=st.sampled_from([1, 16, 512]))
    def begin(self, pages: int, chunk: int) -> None:
        """An engine with little memory, or with much."""
        self.cast = Cast([])
        self.model: ScriptedModel = scripted(self.cast, pages=pages)
        self.model.before = self._poison
        self.scheduler = Scheduler(self.model, chunk, pages // 4, lambda: None)
        self.runs: list[Run] = []

    @property
    def open(self) -> list[Run]:
        """Sessions that have not ended."""
        return [run for run in getattr(self, "runs", []) if run.busy]

    @precondition(lambda self: len(self.open) < 4)
    @rule(
        team=teams(),
        pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(lambda p: [*p, *SOON]),
        replies=st.lists(st.sampled_from(REPLIES), min_size=1, max_size=4),
        ends=st.booleans(),
        seed=st.integers(0, 99),
    )
    def submit(
        self, team: Team, pieces: list[Any], replies: list[Any], ends: bool, seed: int
    ) -> None:
        """A new session."""
        end = min(team.tokenizer.ends)
        if ends and team.may_end:
            pieces = [*pieces, END]
        worker, writer = (
            Chatter(piece_ids([end if p == END else p for p in said], team), seed)
            for said in (pieces, replies)
        )
        session = team.session(f"Task {len(self.runs)}?")
        role = Role(session, worker, writer)
        try:
            tokens = self.scheduler.check(session)
        except OutOfCacheMemoryError:
            return
        self.cast.roles.append(role)
        events: list[Event] = []
        task = Task(session, events.extend, lambda *_: None, tokens)
        self.runs.append(Run(session, task, role, events))
        task.close = lambda result, error: self._close(self.runs[at], result, error)
        at = len(self.runs) - 1
        self.scheduler.add(task)

    def _close(self, run: Run, result: Result, error: BaseException | None) -> None:
        assert run.outcome is None, "a session ends once"
        run.outcome = (result, error)

    def _poison(self, views: Sequence[Sequence[CacheBlock]]) -> None:
        for run in self.open:
            lease = run.task.lease
            if run.poisoned and lease is not None:
                for view in views:
                    if not set(lease.blocks).isdisjoint(view):
                        raise ArithmeticError("poison")

    @precondition(lambda self: self.open)
    @rule(times=st.integers(1, 20))
    def advance(self, times: int) -> None:
        """Runs some passes."""
        for _ in range(times):
            self.scheduler.advance()
            wait([run.task.future for run in self.open if run.task.future is not None], WAIT)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), text=st.sampled_from(["Hello!", "### History", "**Bob [1]:** x.\n\n"]))
    def say(self, data: st.DataObject, text: str) -> None:
        """A note to one of them."""
        run = data.draw(st.sampled_from(self.open))
        run.said.append((run.next_look, text))
        run.session.hear(text)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["stop", "cancel", "poison"]), now=st.booleans())
    def end(self, data: st.DataObject, how: str, now: bool) -> None:
        """Stops or cancels a session, or makes its next pass fail; seldom before it thinks."""
        run = data.draw(st.sampled_from(self.open))
        if not (run.next_stop > 5 or (now and how == "stop")):
            return
        if how == "poison":
            run.poisoned = True
        elif how == "stop":
            if run.stop_after is None:
                run.stop_after, run.stop_begun = run.next_stop, run.begun
            run.session.stop()
        elif run.task.future is None:
            self.scheduler.cancel(run.task)

    @precondition(lambda self: self.open)
    @rule(left=st.integers(0, 8), times=st.integers(1, 8))
    def crowd(self, left: int, times: int) -> None:
        """Takes nearly all of the cache for a while, so that sessions are preempted."""
        block = self.model.new_block()
        self.model.pool.reserve([(block, max(0, self.model.pool.free_pages - left) * PAGE)])
        self.advance(times)
        block.free()

    def teardown(self) -> None:
        """All sessions end, with the results of the reference."""
        for _ in range(5000):
            if not self.open:
                break
            self.advance(1)
        assert not self.open, "somebody hangs"
        for run in getattr(self, "runs", []):
            self._compare(run)
        if hasattr(self, "scheduler"):
            self.scheduler.prefixes.clear()
            assert self.model.pool.used_pages == 0

    def _compare(self, run: Run) -> None:
        assert run.outcome is not None
        got, error = run.outcome
        team = run.session.team
        note(repr(run))
        check_events(run.events, got)
        if error is not None:
            assert isinstance(error, (ArithmeticError, OutOfCacheMemoryError)), "only these kill"
        cut = got.finish_reason in ("error", "cancelled")
        assert cut == (error is not None or got.finish_reason == "cancelled")
        if not got.tokens:
            assert got.unheard == tuple(text for _, text in run.said)
            return
        heard = sum(isinstance(part, Note) for part in got.history)
        seen = [i.contexts.copy() for i in team.interrupts if isinstance(i, Curious)]
        expected = ReferenceTeam(
            team,
            run.session.problem,
            prompt_of(run.session),
            run.role,
            said=run.said[:heard] if cut else run.said,
            stop_after=run.stop_after,
            stop_begun=run.stop_begun,
            cut_after=got.passes if cut else None,
        )
        assert got.history == tuple(expected.history)
        assert got.unfinished == expected.unfinished
        assert got.interruptions == tuple(expected.interruptions)
        assert got.tokens == {w.name: w.total for w in expected.workers}
        assert got.passes == expected.passes
        self._compare_views(run, expected.views)
        snapshots = [expected.snapshots[budget] for budget in sorted(expected.snapshots)]
        if cut:
            assert got.unheard == tuple(text for _, text in run.said[heard:])
            assert set(got.snapshots) <= set(snapshots)
            assert got.reply == "" or (expected.reply and expected.reply.text.startswith(got.reply))
            return
        self._compare_ends(got, expected)
        assert list(got.snapshots) == snapshots
        contexts = [repr(context) for these in seen for context in these]
        assert set(contexts) >= {repr(context) for context in expected.contexts}
        assert len(contexts) == len(expected.contexts) or got.finish_reason == "stopped"
        for written in expected.written:
            self._compare_views(run, [[view] for view in written.views])

    def _compare_ends(self, got: Result, expected: ReferenceTeam) -> None:
        """How it ended."""
        assert got.finish_reason == expected.reason
        assert got.answer == expected.answer
        assert got.unheard == tuple(text for _, text in expected.said)
        assert got.reply_passes == expected.reply_passes
        if expected.reply is None:
            assert (got.reply, got.reply_reason, got.reply_tokens) == ("", None, 0)
            return
        assert got.reply == expected.reply.text
        assert got.reply_reason == expected.reply.reason
        assert got.reply_tokens == expected.reply.tokens

    def _compare_views(self, run: Run, expected: list[list[Ids]]) -> None:
        """The passes of a session showed exactly the expected views, in order."""
        passes = iter(self.model.passes)
        for number, views in enumerate(expected, 1):
            for rows in passes:
                mine = {row.seen for row in rows if belongs(row.seen, run.session)}
                if mine.issuperset(views):
                    break
            else:
                raise AssertionError(f"nobody saw what should be seen in pass {number}")


Teams.TestCase.settings = settings(
    max_examples=int(os.environ.get("HOGWILD_EXAMPLES", "25")),
    stateful_step_count=25,
    deadline=None,
    derandomize="HOGWILD_EXAMPLES" not in os.environ,
    suppress_health_check=[*HealthCheck],
)
test_sessions_and_the_reference = Teams.TestCase
