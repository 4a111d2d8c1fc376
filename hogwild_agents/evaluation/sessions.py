"""Sessions for strategies: a team that answers at several budgets, or one worker's reply."""

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
    """The model that strategies run on, and the options of its teams.

    Attributes:
        model: Name or folder.
        device: Where the model runs; None to choose automatically.
        dtype: Type of the weights.
        options: Arguments of `build_team` for every strategy.
    """

    model: str = "pocket"
    device: str | None = None
    dtype: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The model's engine; the first access loads the weights."""
        return get_engine(self.model, self.device, self.dtype)

    def team(self, workers: int, seed: int, **options: Any) -> Team:
        """A team on this model."""
        return build_team(self.model, workers, seed=seed, **(self.options | options))


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """What a strategy achieved within a budget; `Record` describes the fields."""

    answer: str | None
    passes: int
    tokens: int
    seconds: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class TeamRun:
    """A finished session.

    Attributes:
        result: The session's own result, at the largest budget.
        by_budget: What it had achieved at each budget.
    """

    result: Result
    by_budget: dict[int, BudgetResult]


async def run_team(
    setting: Setting,
    workers: int,
    problem: Problem,
    seed: int,
    budgets: Sequence[int],
    **options: Any,
) -> TeamRun:
    """Lets a team think for the largest budget, and asks it for an answer at each of them."""
    options |= {"budget": budgets[-1], "snapshots": list(budgets), "finisher": "answer"}
    team = setting.team(workers, seed, **options)
    tokens_by_pass: Counter[int] = Counter()
    seconds_by_budget: dict[int, float] = {}
    async with setting.engine.submit(team.session(problem.question)) as handle:
        async for event in handle:
            if isinstance(event, ev.Token):
                tokens_by_pass[event.at] += 1
            elif isinstance(event, ev.SnapshotTaken):
                seconds_by_budget[event.snapshot.budget] = event.seconds
        result: Result = await handle
    if result.error is not None:
        raise RuntimeError(result.error)
    bytes_per_token = setting.engine.model.pool.bytes_per_token
    by_budget = {}
    for snapshot in result.snapshots:
        drawn = sum(count for at, count in tokens_by_pass.items() if at <= snapshot.budget)
        by_budget[snapshot.budget] = BudgetResult(
            None if snapshot.answer is None else str(snapshot.answer),
            snapshot.passes + snapshot.tokens,
            drawn + snapshot.tokens,
            seconds_by_budget.get(snapshot.budget, result.timings.total),
            (result.prompt_tokens + drawn + snapshot.tokens) * bytes_per_token,
        )
    return TeamRun(result, by_budget)


def steps_of(result: Result) -> tuple[dict[str, Any], ...]:
    """The steps of all workers, finished or not, in the form that a transcript stores."""
    interruptions = {(item.worker, item.index): item for item in result.interruptions}
    steps = []
    for step in (*result.steps, *result.unfinished):
        interruption = interruptions.get((step.worker, step.index))
        steps.append(
            {
                "worker": step.worker,
                "index": step.index,
                "text": step.text,
                "begun": step.begun,
                "ended": step.ended,
                "asked": "" if interruption is None else interruption.text,
                "answer": None if interruption is None else interruption.answer,
            }
        )
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Reply:
    """One worker's reply.

    Attributes:
        tokens: The text of each token.
        prompt_tokens: Tokens of the prompt.
        seconds: Wall time.
    """

    tokens: list[str]
    prompt_tokens: int
    seconds: float

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(self.tokens)


async def generate_reply(setting: Setting, prompt: str, seed: int, max_tokens: int) -> Reply:
    """Lets one worker reply without thinking first."""
    team = setting.team(
        1,
        seed,
        finisher="reply",
        budget=max_tokens,
        reply_tokens=max_tokens,
        snapshots=[],
        prompt=CollaborationPrompt(),
    )
    async with setting.engine.submit(team.session(prompt)) as handle:
        tokens = [e.text async for e in handle if isinstance(e, ev.Token | ev.ReplyToken)]
        result: Result = await handle
    return Reply(tokens[:max_tokens], result.prompt_tokens, result.timings.total)
