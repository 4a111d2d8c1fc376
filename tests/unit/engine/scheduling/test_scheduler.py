"""Which jobs take part in a pass, wait or are preempted; the scheduler without its thread."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.engine import BatchEntry, SamplerState, Write
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import OutOfCacheMemoryError
from tests.unit.engine.jobs import (
    GREEDY,
    Direct,
    Rows,
    Spec,
    Spy,
    Team,
    alone,
    done_future,
    load,
    pages_of,
    some_specs,
)
from tests.unit.engine.reference import some_tokens

SPECS = some_specs(10, passes=(5, 20))


@cache
def expected(index: int) -> Rows:
    """What team `index` draws alone."""
    return alone(load(), [SPECS[index]])[0]


@dataclass(frozen=True)
class Plan:
    """Teams that come and are cancelled while a scheduler runs."""

    pages: int
    chunk: int
    prefix_pages: int
    teams: tuple[int, ...]
    arrivals: tuple[int, ...]  # for each team the round in which it comes
    cancels: tuple[tuple[int, int], ...]  # rounds, and which team is cancelled then


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan."""
    teams = draw(st.lists(st.integers(0, len(SPECS) - 1), min_size=1, max_size=7))
    rounds = st.integers(0, 60)
    return Plan(
        draw(st.sampled_from([24, 30, 40, 200])),
        draw(st.sampled_from([1, 8, 33, 512])),
        draw(st.sampled_from([0, 3, 10**6])),
        tuple(teams),
        tuple(draw(st.sampled_from([0, 0, 0, 5, 20])) for _ in teams),
        tuple(
            draw(st.lists(st.tuples(rounds, st.integers(0, len(teams) - 1)), max_size=3)),
        ),
    )


class Watched(Direct):
    """A scheduler that is examined after every round, and while it runs a pass."""

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Looks at every batch that is about to run."""
        run = self.scheduler._executor.run

        def spy(batch: Sequence[Task]) -> Any:
            prompts = [task for task in batch if task.divisible]
            assert sum(task.scheduled for task in prompts) <= self.scheduler.prefill_chunk
            assert all(task.offloaded is None and not task.ended for task in batch)
            ready = {task for task in self.scheduler.running if task.entry and not task.offloaded}
            left_out = ready - set(batch)
            assert all(task.divisible for task in left_out), "a job that decodes is never left out"
            return run(batch)

        patch.setattr(self.scheduler._executor, "run", spy)

    def round(self) -> bool:
        """Advances once; everything must be in order then."""
        oldest = next((t for t in self.scheduler.running if not t.ended), None)
        in_cache = oldest is not None and oldest.offloaded is None
        busy = self.scheduler.advance()
        if oldest is not None and in_cache:
            assert oldest.offloaded is None, "the oldest is never preempted"
        self.examine()
        return busy

    def examine(self) -> None:
        """Every page has an owner, every job is in one place, and lines are in order."""
        scheduler, pool = self.scheduler, self.scheduler.pool
        leases = [task.lease for task in scheduler.running]
        assert all(lease is not None for lease in leases)
        held = pages_of(block for lease in leases if lease for block in lease.blocks)
        kept = pages_of(entry.block for entry in scheduler.prefix_cache._entries)
        assert pool.used_pages == len(held | kept) <= pool.limit_pages
        assert scheduler.prefix_cache.pages == len(kept) <= scheduler.prefix_cache.limit_pages
        order = {task: index for index, task in enumerate(self.tasks)}
        running = [order[task] for task in scheduler.running]
        waiting = [order[task] for task in scheduler.waiting]
        assert running + waiting == sorted({*running, *waiting})
        alive = [index for index, task in enumerate(self.tasks) if not task.ended]
        assert alive == running + waiting
        assert [i for i in range(len(self.tasks)) if i in self.outcomes] == [
            i for i, task in enumerate(self.tasks) if task.ended
        ]
        out = [task.offloaded is not None for task in scheduler.running]
        assert out == sorted(out), "the youngest are preempted first"
        for task in scheduler.running:
            assert task.lease
            assert task.offloaded is None or pages_of(task.lease.blocks) == set()


@given(plans())
@settings(max_examples=10)
def test_whatever_comes_and_goes(plan: Plan) -> None:
    """Memory, order and fairness after every round; jobs that are not cancelled end correctly."""
    model = load(plan.pages)
    watched = Watched.on(model, plan.chunk, plan.prefix_pages)
    arrivals = sorted(range(len(plan.teams)), key=lambda i: plan.arrivals[i])
    cancelled: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        index = 0
        while watched.round() or len(watched.tasks) < len(plan.teams):
            for number in arrivals:
                if plan.arrivals[number] == index:
                    watched.add(SPECS[plan.teams[number]].job())
            for when, place in plan.cancels:
                if when == index and place < len(watched.tasks):
                    if place not in watched.outcomes:
                        cancelled.add(place)
                    watched.scheduler.cancel(watched.tasks[place])
                    watched.examine()
            index += 1
            assert index < 5000
    assert len(watched.outcomes) == len(plan.teams)
    for place, (outcome, error) in watched.outcomes.items():
        rows = expected(plan.teams[arrivals[place]])
        assert error is None
        assert outcome.cancelled == (place in cancelled)
        assert outcome.drawn == (rows[: len(outcome.drawn)] if place in cancelled else rows)
    assert not watched.scheduler.running
    assert not watched.scheduler.waiting
    assert model.pool.used_pages == watched.scheduler.prefix_cache.pages
    watched.scheduler.prefix_cache.clear()
    assert model.pool.used_pages == 0


class TestFairness:
    """No job waits for more than a chunk of another one's prompt."""

    def test_a_team_goes_on_while_long_prompts_are_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes part in every pass, and no pass has more than a chunk besides its tokens."""
        model = load()
        spy = Spy(model, monkeypatch)
        direct = Direct.on(model, prefill_chunk=16)
        team = Team(some_tokens(10), workers=3, passes=60)
        direct.add(team)
        direct.scheduler.advance()
        readers = [direct.add(Team(some_tokens(200, n), workers=1, passes=1)) for n in (1, 2)]
        while not readers[1].ended:
            before = len(team.drawn)
            direct.scheduler.advance()
            assert len(team.drawn) == before + 1
        assert all(sum(tokens) <= 16 + 3 + 1 for tokens in spy.passes)
        assert sum(sum(tokens) >= 16 for tokens in spy.passes) == 2 * 200 // 16
        direct.drain()
        assert team.drawn == alone_rows(some_tokens(10), 60, workers=3)

    def test_the_first_comer_is_read_first(self) -> None:
        """A prompt gets what the older ones leave of a chunk."""
        direct = Direct.on(load(), prefill_chunk=50)
        tasks = [direct.add(Team(some_tokens(80, seed), passes=1)) for seed in range(3)]
        lengths = []
        while not all(task.ended for task in tasks):
            direct.scheduler.advance()
            lengths.append([len(t.lease.prompt) if t.lease and not t.ended else 80 for t in tasks])
        assert lengths[:4] == [[50, 0, 0], [80, 20, 0], [80, 70, 0], [80, 80, 40]]

    def test_a_long_text_of_a_running_job_is_cut_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a prompt is; the tokens are the same as if it was read at once."""
        model = load()
        text = some_tokens(100, 3)

        def say(team: Team, index: int) -> Any:
            if index == 2:
                assert team.lease
                return BatchEntry([Write([team.lease.prompt], text, SamplerState(GREEDY))])
            return None

        whole = Direct.on(model, prefill_chunk=512)
        whole.add(Team([1, 2], passes=9, before=say))
        whole.drain()
        whole.scheduler.prefix_cache.clear()
        spy = Spy(model, monkeypatch)
        cut = Direct.on(model, prefill_chunk=16)
        cut.add(Team([1, 2], passes=9, before=say))
        cut.drain()
        assert cut.drawn() == whole.drawn()
        assert cut.outcomes[0][0].answers == whole.outcomes[0][0].answers != []
        pieces = [tokens for (tokens, *others) in spy.passes if not others]
        assert pieces[-7:] == [16] * 6 + [4]
        assert max(map(sum, spy.passes)) == 16

    def test_writers_of_one_entry_are_never_split(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They may see each other, so a long text for several writers runs whole."""
        model = load()
        spy = Spy(model, monkeypatch)

        def say(team: Team, index: int) -> Any:
            if index:
                return None
            assert team.lease
            blocks = [team.lease.new_block() for _ in range(2)]
            views = [[team.lease.prompt, *blocks], [team.lease.prompt, *blocks[::-1]]]
            return BatchEntry([Write(view, some_tokens(40)) for view in views])

        direct = Direct.on(model, prefill_chunk=16)
        direct.add(Team([1, 2], passes=1, before=say))
        direct.drain()
        assert [40, 40] in spy.passes

    def test_first_come_first_served(self) -> None:
        """A small job does not overtake a large one that waits."""
        direct = Direct.on(load(24), prefix_pages=0)
        first = direct.add(Team(some_tokens(5 * PAGE), workers=1, passes=40))
        large = direct.add(Team(some_tokens(18 * PAGE, 1), workers=1, passes=3))
        small = direct.add(Team([1, 2, 3], workers=1, passes=3))
        direct.scheduler.advance()
        while not first.ended:
            assert list(direct.scheduler.waiting) == [large, small]
            direct.scheduler.advance()
        direct.drain()
        assert len(direct.outcomes) == 3
        assert large.usage.preemptions == small.usage.preemptions == 0


class TestMemory:
    """Admission, eviction, preemption, restoring."""

    def test_admitted_prompts_have_their_memory(self) -> None:
        """Pages of prompts that are not read yet are not promised twice; no job is preempted."""
        direct = Direct.on(load(24), prefill_chunk=16, prefix_pages=0)
        tasks = [direct.add(Team(some_tokens(7 * PAGE, n), workers=1, passes=3)) for n in range(6)]
        direct.scheduler.advance()
        assert len(direct.scheduler.running) == 3
        direct.drain()
        assert [task.usage.preemptions for task in tasks] == [0] * 6
        assert len(direct.drawn()) == 6

    def test_an_overgrown_job_makes_room_for_those_outside(self) -> None:
        """A job that takes more than it claimed ends with an error; the preempted ones continue."""
        direct = Direct.on(load(24), prefix_pages=0)
        liar = glutton(40)
        liar.max_cache_tokens = 100
        direct.add(liar)
        honest = [direct.add(Team(some_tokens(40, n), workers=1, passes=50)) for n in range(2)]
        direct.drain()
        assert len(direct.outcomes) == 3
        outcome, error = direct.outcomes[0]
        assert isinstance(error, OutOfCacheMemoryError)
        assert "24" in str(error)
        assert len(outcome.drawn) > 15
        assert all(task.usage.preemptions for task in honest)
        for place, seed in ((1, 0), (2, 1)):
            assert direct.outcomes[place][1] is None
            assert direct.outcomes[place][0].drawn == alone_rows(some_tokens(40, seed), 50)

    def test_a_sleeping_job_makes_room(self) -> None:
        """A job whose entry does not fit next to a sleeping job takes its place."""
        future: Future[str] = Future()
        direct = Direct.on(load(24), prefix_pages=0)
        idle = direct.add(
            Team(
                some_tokens(10 * PAGE),
                workers=1,
                passes=3,
                before=lambda _, index: future if index == 1 else None,
            )
        )

        def say(team: Team, index: int) -> Any:
            if index == 2:
                assert team.lease
                return BatchEntry([Write([team.lease.prompt], some_tokens(12 * PAGE))])
            return None

        large = Team(some_tokens(3 * PAGE, 1), workers=1, passes=5, before=say)
        large.max_cache_tokens += 12 * PAGE
        task = direct.add(large)
        assert direct.drain() < 20
        assert direct.drain() == 0
        assert task.ended
        assert task.usage.preemptions == idle.usage.preemptions == 1
        assert idle.offloaded is not None
        future.set_result("now")
        assert direct.woken == 1
        direct.drain()
        assert idle.ended
        assert len(direct.drawn()[1]) == 5

    def test_blocks_from_outside_the_engine(self) -> None:
        """If no job will ever make room, a job ends with an error instead of waiting."""
        model = load(24)
        hog = model.new_block()
        model.pool.reserve([(hog, 20 * PAGE)])
        hog.advance(20 * PAGE)
        direct = Direct.on(model)
        direct.add(Team(some_tokens(6 * PAGE), workers=1, passes=3))
        direct.add(Team(some_tokens(PAGE), workers=1, passes=3))
        direct.drain()
        error = direct.outcomes[0][1]
        assert isinstance(error, OutOfCacheMemoryError)
        assert "4 of 24" in str(error)
        assert direct.outcomes[1][1] is None

    def test_nothing_is_evicted_in_vain(self) -> None:
        """Cached prompts stay if evicting them would not make enough room."""
        direct = Direct.on(load(24))
        direct.add(Team(some_tokens(3 * PAGE), workers=1, passes=1))
        direct.drain()
        old = direct.add(Team(some_tokens(10 * PAGE, 1), workers=1, passes=9))
        direct.scheduler.advance()
        large = direct.add(Team(some_tokens(17 * PAGE, 2), workers=1, passes=3))
        while not old.ended:
            assert direct.scheduler.prefix_cache.match(np.array(some_tokens(3 * PAGE))) == 3 * PAGE
            assert large in direct.scheduler.waiting
            direct.scheduler.advance()
        direct.drain()
        assert len(direct.drawn()) == 3

    def test_eviction_comes_before_preemption(self) -> None:
        """The least recently used prompts go first."""
        direct = Direct.on(load(24))
        for seed in range(3):
            direct.add(Team(some_tokens(6 * PAGE, seed), workers=1, passes=1))
            direct.drain()
        assert len(direct.scheduler.prefix_cache) == 3
        task = direct.add(Team(some_tokens(8 * PAGE, 9), workers=1, passes=40))
        direct.drain()
        assert task.usage.preemptions == 0
        kept = [entry.tokens[:3].tolist() for entry in direct.scheduler.prefix_cache._entries]
        assert some_tokens(3, 0) not in kept
        assert kept[-1] == some_tokens(3, 9)


class TestFutures:
    """A job that waits for a future stops no other job."""

    def test_others_go_on_meanwhile(self) -> None:
        """And each job gets its own result."""
        future: Future[str] = Future()
        direct = Direct.on(load())
        asker = direct.add(
            Team([1, 2], passes=9, before=lambda _, index: future if index == 3 else None)
        )
        other = direct.add(Team([3, 4], passes=30))
        direct.drain()
        assert other.ended
        assert asker.future is future
        assert not asker.ended
        assert not direct.scheduler.advance(), "there is nothing to do"
        future.set_result("yes")
        assert direct.woken == 1
        direct.drain()
        assert direct.outcomes[0][0].answers == ["yes"]
        assert direct.drawn()[0] == alone_rows([1, 2], 9, workers=2)

    def test_futures_that_are_done_already(self) -> None:
        """One after the other, in one go."""
        direct = Direct.on(load())
        direct.add(Team([1, 2], passes=9, before=lambda _, index: done_future(index)))
        direct.drain()
        assert direct.outcomes[0][0].answers == [*range(9)]
        assert direct.drawn()[0] == alone_rows([1, 2], 9, workers=2)

    @pytest.mark.parametrize("when", ["soon", "late"])
    def test_an_answer_that_comes_while_the_job_is_out(self, when: str) -> None:
        """It is moved to host memory while it waits, and continues as if it was not."""
        future: Future[int] = Future()
        model = load(24)
        direct = Direct.on(model, prefix_pages=0)
        old = direct.add(glutton(18))
        asker = direct.add(
            Team(
                some_tokens(5 * PAGE, 1),
                workers=2,
                passes=20,
                before=lambda _, index: future if index == 9 else None,
            )
        )
        while asker.offloaded is None:
            assert direct.scheduler.advance()
        assert asker.future is future
        if when == "soon":
            future.set_result(7)
        direct.scheduler.advance()
        assert asker.offloaded is not None
        direct.drain()
        assert old.ended
        if when == "late":
            assert asker.offloaded is not None  # it would only sleep inside
            future.set_result(7)
            direct.drain()
        assert direct.outcomes[1][0].answers == [7]
        assert direct.drawn()[1] == alone_rows(some_tokens(5 * PAGE, 1), 20, workers=2)
        assert asker.usage.preemptions == 1


def glutton(pages: int) -> Team:
    """A worker that reads so many pages, one before each of its passes."""

    def eat(team: Team, index: int) -> Any:
        assert team.lease
        return BatchEntry([Write([team.lease.prompt], some_tokens(PAGE, index))])

    team = Team(some_tokens(PAGE), workers=1, passes=pages, before=eat)
    team.max_cache_tokens += pages * PAGE
    return team


def alone_rows(prompt: list[int], passes: int, workers: int = 1) -> Rows:
    """What a plain team draws alone."""
    return alone(load(), [Spec(tuple(prompt), workers, passes)])[0]
