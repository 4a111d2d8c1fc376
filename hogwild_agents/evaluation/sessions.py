"""Sessions as strategies use them: a team that answers at many budgets, a reply token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hogwild_agents.engine import Engine
from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.registry import build_team, get_engine
from hogwild_agents.team import CollaborationPrompt, Result, Team
from hogwild_agents.team import events as ev


@dataclass(frozen=True, slots=True)
class Setting:
    """The model on which strategies run, and how its teams are set up.

    Attributes:
        model: Its name or folder.
        device: Where it runs; chosen by itself if None.
        dtype: Of its weights.
        options: Arguments of `build_team` for every strategy.
    """

    model: str = "pocket"
    device: str | None = None
    dtype: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """Its engine; loads the weights when it is first asked for."""
        return get_engine(self.model, self.device, self.dtype)

    def team(self, workers: int, seed: int, **options: Any) -> Team:
        """A team on this model."""
        return build_team(self.model, workers, seed=seed, **(self.options | options))


@dataclass(frozen=True, slots=True)
class Reached:
    """What a strategy had come to within a budget; see `Record` for the fields."""

    answer: str | None
    passes: int
    tokens: int
    seconds: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Watched:
    """A session that was followed to its end."""

    result: Result
    reached: dict[int, Reached]


async def watch(
    setting: Setting,
    workers: int,
    problem: Problem,
    seed: int,
    budgets: Sequence[int],
    **options: Any,
) -> Watched:
    """Lets a team think for the largest budget, and answer at all of them."""
    options |= {"budget": budgets[-1], "snapshots": list(budgets), "finisher": "answer"}
    team = setting.team(workers, seed, **options)
    drawn: Counter[int] = Counter()  # tokens by the pass in which they were drawn
    answered: dict[int, float] = {}
    async with setting.engine.submit(team.session(problem.question)) as handle:
        async for event in handle:
            if isinstance(event, ev.Token):
                drawn[event.at] += 1
            elif isinstance(event, ev.SnapshotTaken):
                answered[event.snapshot.budget] = event.seconds
        result: Result = await handle
    if result.error is not None:
        raise RuntimeError(result.error)
    size = setting.engine.model.pool.bytes_per_token
    reached = {}
    for snapshot in result.snapshots:
        tokens = sum(count for at, count in drawn.items() if at <= snapshot.budget)
        reached[snapshot.budget] = Reached(
            None if snapshot.answer is None else str(snapshot.answer),
            snapshot.passes + snapshot.tokens,
            tokens + snapshot.tokens,
            answered.get(snapshot.budget, result.timings.total),
            (result.prompt_tokens + tokens + snapshot.tokens) * size,
        )
    return Watched(result, reached)


def steps_of(result: Result) -> tuple[dict[str, Any], ...]:
    """Of all workers, finished or not, as a transcript keeps them."""
    asked = {(one.worker, one.index): one for one in result.interruptions}
    steps = []
    for step in (*result.steps, *result.unfinished):
        check = asked.get((step.worker, step.index))
        steps.append(
            {
                "worker": step.worker,
                "index": step.index,
                "text": step.text,
                "begun": step.begun,
                "ended": step.ended,
                "asked": "" if check is None else check.text,
                "answer": None if check is None else check.answer,
            }
        )
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Said:
    """A reply as it grew, token by token."""

    pieces: list[str]
    prompt: int
    seconds: float

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


async def say(setting: Setting, asked: str, seed: int, most: int) -> Said:
    """What one worker replies at once."""
    team = setting.team(
        1,
        seed,
        finisher="reply",
        budget=most,
        reply_tokens=most,
        snapshots=[],
        prompt=CollaborationPrompt(),
    )
    async with setting.engine.submit(team.session(asked)) as handle:
        pieces = [e.text async for e in handle if isinstance(e, ev.Token | ev.ReplyToken)]
        result: Result = await handle
    return Said(pieces[:most], result.prompt_tokens, result.timings.total)
