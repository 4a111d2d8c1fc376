"""Sharing changes nothing: a team computes what a plain model computes, alone or with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from hogwild_agents.engine import Engine, SamplingParams
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.scheduling.scheduler import Scheduler
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.team import Interrupt, InterruptContext, Layout, RedundancyCheck, Result, Team
from hogwild_agents.team.events import Timings
from tests.unit.engine.families import Family, build
from tests.unit.team.layouts import newest_last
from tests.unit.team.scripted import (
    GREEDY,
    WAIT,
    Ids,
    Row,
    ScriptedModel,
    Terse,
    play,
    tokenizer,
)

PEAKED = Family("peaked", "qwen3", {"max_position_embeddings": 4096, "vocab_size": 512})
"""Two layers with weights that make every token matter."""


@pytest.fixture(scope="module")
def peaked() -> ScriptedModel:
    """A real model that chooses its own tokens, except where a test forces them."""
    return _peaked()


@cache
def _peaked() -> ScriptedModel:
    model = ScriptedModel.from_pretrained(build(PEAKED))
    assert isinstance(model, ScriptedModel)
    return model


@pytest.fixture(scope="module")
def plain() -> Any:
    """The same model as transformers runs it."""
    return build(PEAKED)


def fresh(model: ScriptedModel, pages: int = 4096) -> ScriptedModel:
    """The model as if nothing had happened."""
    assert model.pool.used_pages == 0
    model.pool.limit_bytes = pages * 32 * model.pool.bytes_per_token
    model.script, model.before, model.passes = (lambda _: None), None, []
    return model


def check_rows(rows: Sequence[Row], plain: Any) -> None:
    """Every row's logits are those of a plain forward over all that it saw."""
    assert rows
    texts: list[tuple[Ids, Tensor]] = []
    for row in sorted(rows, key=lambda row: -len(row.seen)):
        size = len(row.seen)
        expected = next((logits for text, logits in texts if text[:size] == row.seen), None)
        if expected is None:
            with torch.no_grad():
                expected = plain(torch.tensor([row.seen])).logits[0]
            texts.append((row.seen, expected))
        assert torch.allclose(row.logits, expected[size - 1], atol=1e-4, rtol=0)


def holds(row: Row, text: list[int]) -> bool:
    """Whether a row sees these ids in a row."""
    starts = range(len(row.seen) - len(text) + 1)
    return any(list(row.seen[at : at + len(text)]) == text for at in starts)


# One text, whatever way it was written.


@pytest.mark.parametrize("name", ["thinking", "headers"])
@pytest.mark.parametrize("finisher", ["reply", "answer"])
def test_one_worker_is_a_plain_model(
    peaked: ScriptedModel, plain: Any, name: str, finisher: Any
) -> None:
    """Prompt, thoughts, snapshot and reply: each token is the plain model's own choice."""
    team = Team(
        tokenizer(name),
        workers=1,
        finisher=finisher,
        budget=24,
        reply_tokens=8,
        snapshots=[5],
        interrupts=[RedundancyCheck(every=3)],
        sampling=GREEDY,
    )
    played = play(team, model=fresh(peaked))
    rows = [row for rows in played.passes for row in rows]
    check_rows(rows, plain)
    assert played.result.passes == (0 if team.replies_at_once else 24)


@pytest.mark.parametrize("chunk", [512, 16])
def test_one_worker_with_steps_and_interrupts(
    peaked: ScriptedModel, plain: Any, chunk: int
) -> None:
    """Text that the system writes into its stream is read like any other."""
    team = Team(
        tokenizer("thinking"),
        workers=1,
        budget=30,
        reply_tokens=4,
        interrupts=[RedundancyCheck(every=3), lambda context: "Hm. " * 150 * (context.index == 3)],
        sampling=GREEDY,
    )
    model = fresh(peaked)
    model.script = steps_now_and_then(team)
    with Engine(model, chunk=chunk) as engine:
        result = engine.submit(team.session("Q?")).result(WAIT)
    assert len(result.interruptions) > 3
    check_rows([row for rows in model.passes for row in rows], plain)


def test_a_history_from_a_single_worker_is_a_plain_text(peaked: ScriptedModel, plain: Any) -> None:
    """While Bob finishes nothing, Alice sees one text that grows; her commits do not change it."""
    team = Team(
        tokenizer("thinking"),
        workers=2,
        layout="interleaved",
        prompt=Terse(),
        budget=40,
        reply_tokens=6,
        snapshots=[9, 25],
        interrupts=[RedundancyCheck(every=20)],
        sampling=GREEDY,
    )
    alice, bob = (team.tokenizer.encode(f"**{name} [1]:**") for name in team.workers)
    (x,) = team.tokenizer.encode("x")
    often = steps_now_and_then(team)

    def script(seen: Ids) -> int | None:
        return x if holds(Row(seen, 0, torch.empty(0)), bob) else often(seen)

    played = play(team, script, model=fresh(peaked), notes=["Mind the gap."])
    assert len(played.result.steps_of("Alice")) > 4
    assert len(played.result.steps_of("Bob")) == 1
    assert {step.worker for step in played.result.steps} == {"Alice"}
    rows = [row for rows in played.passes for row in rows]
    mine = [row for row in rows if holds(row, alice) and not holds(row, bob)]
    assert len(mine) > 60
    check_rows(mine, plain)
    assert "Mind the gap." in str(played.result.history[0])


# Many at once.


def steps_now_and_then(team: Team) -> Any:
    """Ends a sentence and a paragraph wherever the number of visible tokens is right."""
    (end,) = team.tokenizer.encode(".\n\n")
    return lambda seen: end if len(seen) % 7 == 0 else None


def hurry(context: InterruptContext) -> str | None:
    """An interrupt that speaks in every fifth pass."""
    return "(Hurry.) " if context.passes % 5 == 0 else None


LAYOUTS = ("combined", "interleaved", "contiguous", Layout("newest_last", newest_last))
INTERRUPTS: tuple[list[Interrupt], ...] = ([RedundancyCheck(every=15)], [hurry], [])
STORY = "Once upon a time there was a number that nobody could find, because it was so small. "


def teams(sampled: bool) -> Iterator[tuple[Team, str]]:
    """Sixteen teams with problems: all sizes, layouts and ways to end."""
    for index in range(16):
        team = Team(
            tokenizer(("thinking", "headers")[index % 3 == 2]),
            workers=1 + index % 4,
            layout=LAYOUTS[(index // 2) % 4],
            prompt=Terse(),
            interrupts=INTERRUPTS[index % 3],
            finisher=("reply", "answer")[index % 5 == 1],
            budget=8 + (7 * index) % 25,
            reply_tokens=6 + index,
            snapshots=[[], [4, 8]][index % 2],
            sampling=SamplingParams(temperature=0.8, top_p=0.95, top_k=20, seed=100 + index)
            if sampled
            else GREEDY,
        )
        yield team, STORY[: 85 * (index % 2)] + f"Task {index}: " + "what? " * (index % 5)


def essence(result: Result) -> Result:
    """The parts of a result that other sessions must not change."""
    return replace(
        result,
        timings=Timings(None, None, None, 0.0),
        reused_tokens=0,
        preemptions=0,
        reading_passes=0,
    )


def all_at_once(
    model: ScriptedModel, sampled: bool, chunk: int = 512, times: int = 1
) -> list[Result]:
    """The results of the sixteen sessions in one engine."""
    pairs = [*teams(sampled)] * times
    model.script = steps_now_and_then(pairs[0][0])
    with Engine(model, chunk=chunk) as engine:
        handles = [engine.submit(team.session(problem)) for team, problem in pairs]
        results = [handle.result(WAIT) for handle in handles]
    assert model.pool.used_pages == 0
    return results


@cache
def alone(sampled: bool) -> list[Result]:
    """The result of each session alone; no draw may be a close call."""
    results = []
    for team, problem in teams(sampled):
        with pytest.MonkeyPatch.context() as patch:
            least = _margins(patch)
            model = fresh(_peaked())
            played = play(team, steps_now_and_then(team), problem=problem, model=model)
        assert min(least, default=1) > 5e-6, f"nearly another token in {problem!r}: change a seed"
        results.append(essence(played.result))
    return results


def _margins(patch: pytest.MonkeyPatch) -> list[float]:
    """The margins by which tokens are drawn from now on."""
    least: list[float] = []
    search, argmax = torch.searchsorted, Tensor.argmax

    def spy_draws(heights: Tensor, points: Tensor, right: bool) -> Tensor:
        least.append(float(((heights - points).abs() / heights[:, -1:]).min()))
        return search(heights, points, right=right)

    def spy_best(logits: Tensor, dim: int) -> Tensor:
        best = logits.topk(2).values
        least.append(float((best[:, 0] - best[:, 1]).min()))
        return argmax(logits, dim)

    patch.setattr(torch, "searchsorted", spy_draws)
    patch.setattr(Tensor, "argmax", spy_best)
    return least


def test_the_sixteen_do_all_that_teams_do() -> None:
    """Otherwise the tests below would show nothing."""
    results = alone(sampled=False)
    assert sum(len(result.steps) for result in results) > 60
    assert sum(len(result.interruptions) for result in results) > 10
    assert sum(len(result.snapshots) for result in results) > 8
    assert {result.layout for result in results} >= {"solo", "combined", "newest_last"}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("chunk", [512, 16])
def test_together_each_gives_what_it_gives_alone(
    peaked: ScriptedModel, chunk: int, sampled: bool
) -> None:
    """Sixteen sessions in one batch, token for token, greedy and with seeds."""
    results = all_at_once(fresh(peaked), sampled, chunk)
    assert [essence(result) for result in results] == alone(sampled)
    assert sum(result.preemptions for result in results) == 0


@pytest.mark.parametrize("sampled", [False, True])
def test_in_a_small_cache(peaked: ScriptedModel, sampled: bool) -> None:
    """Sessions wait and are preempted, which does not change their texts."""
    results = all_at_once(fresh(peaked, pages=66), sampled)
    assert [essence(result) for result in results] == alone(sampled)
    assert sum(result.preemptions for result in results) > 0
    assert max(result.timings.waited or 0 for result in results) > 0


def test_with_shared_beginnings(peaked: ScriptedModel) -> None:
    """The same sixteen twice: the second time their prompts are cached."""
    results = all_at_once(fresh(peaked), sampled=True, times=2)
    assert [essence(result) for result in results] == 2 * alone(sampled=True)
    assert sum(result.reused_tokens for result in results[16:]) > 500


@pytest.mark.parametrize("sampled", [False, True])
def test_snapshots_do_not_change_the_run(peaked: ScriptedModel, sampled: bool) -> None:
    """A snapshot at every fourth pass changes no text."""
    for number, (team, problem) in enumerate(teams(sampled)):
        if number % 3 == 1:
            team.snapshots = tuple(range(1, team.budget + 1, 4))
            seen = play(team, steps_now_and_then(team), problem=problem, model=fresh(peaked))
            expected = alone(sampled)[number]
            got = essence(seen.result)
            assert [s.budget for s in got.snapshots] == [*team.snapshots]
            got, expected = (
                replace(result, snapshots=(), reply_passes=0) for result in (got, expected)
            )
            assert got == expected


def test_swapped_after_every_pass(peaked: ScriptedModel) -> None:
    """Even in the middle of a snapshot, a session goes on exactly where it was."""
    model = fresh(peaked)
    scheduler = Scheduler(model, 512, 0, lambda: None)
    results: list[Result] = []
    amid_snapshots = 0
    for team, problem in teams(sampled=True):
        model.script = steps_now_and_then(team)
        session = team.session(problem)
        tokens = scheduler.check(session)
        task = Task(session, lambda _: None, lambda result, _: results.append(result), tokens)
        scheduler.add(task)
        while not task.ended:
            if task.future is not None:
                task.future.exception(WAIT)
            scheduler.advance()
            if task.lease is not None and task.lease.blocks and not task.ended:
                hole = model.new_block()  # so that all comes back to another place
                model.pool.reserve([(hole, 32)])
                OffloadedBlocks(task.lease.blocks).restore()
                hole.free()
                amid_snapshots += bool(session._writers)
    assert amid_snapshots > 50
    assert [essence(result) for result in results] == alone(sampled=True)
    assert model.pool.used_pages == 0
