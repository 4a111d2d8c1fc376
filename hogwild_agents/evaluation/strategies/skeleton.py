"""Skeleton-of-Thought (Ning et al., arXiv 2307.15337): an outline, then all its points at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import BudgetResult, Reply, Setting, generate_reply
from hogwild_agents.evaluation.strategies.base import Outcome

SKELETON = """\
You're an organizer responsible for only giving the skeleton (not the full content) for answering \
the question. Provide the skeleton in a list of 3 to 8 points, numbered 1., 2., 3., each of 3 to 5 \
words.

Question:
{question}"""
"""The first request of Skeleton-of-Thought (Ning et al., arXiv 2307.15337), shortened."""

POINT = """\
You're responsible for continuing the writing of one and only one point in the answer to the \
following question.

{question}

The skeleton of the answer is:
{skeleton}

Continue and only continue the writing of point {index}: {point}. Do not continue with others!"""
"""Its second request."""

_POINT = re.compile(r"^\s*(\d+)[.)]\s*(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SkeletonOfThought:
    """An outline first, then all of its points at the same time, independently."""

    max_points: int = 8

    @property
    def name(self) -> str:
        """`skeleton`."""
        return "skeleton"

    def check(self, setting: Setting) -> None:
        """See `Strategy`."""
        setting.team(1, 0)

    async def run(
        self, setting: Setting, problem: Problem, seed: int, budgets: Sequence[int]
    ) -> Outcome:
        """See `Strategy`. Each point may use what the outline leaves of the largest budget."""
        budget, question = budgets[-1], problem.question
        outline = await generate_reply(setting, SKELETON.format(question=question), seed, budget)
        points = _POINT.findall(outline.text)[: self.max_points]
        used = len(outline.tokens)
        prompts = [
            POINT.format(question=question, skeleton=outline.text, index=index, point=point)
            for index, point in points
        ]
        replies: list[Reply] = []
        if used < budget:
            replies = await asyncio.gather(
                *(
                    generate_reply(setting, prompt, seed + number, budget - used)
                    for number, prompt in enumerate(prompts, 1)
                )
            )
        steps = [_step("outline", outline, 0)]
        steps += [
            _step(f"point {index}", reply, used)
            for (index, _), reply in zip(points, replies, strict=False)
        ]
        return Outcome(
            {budget: _result_at(setting, budget, outline, replies) for budget in budgets},
            tuple(step["worker"] for step in steps),
            tuple(steps),
            "\n\n".join(reply.text for reply in replies),
        )


def _result_at(
    setting: Setting, budget: int, outline: Reply, replies: Sequence[Reply]
) -> BudgetResult:
    """The result after so many passes, of which the outline takes the first."""
    used = min(budget, len(outline.tokens))
    texts = ["".join(reply.tokens[: budget - used]) for reply in replies]
    lengths = [min(budget - used, len(reply.tokens)) for reply in replies]
    answer = setting.team(1, 0).answer.extract("\n\n".join(texts)) if any(texts) else None
    tokens = used + sum(lengths)
    prompt_tokens = outline.prompt_tokens + sum(reply.prompt_tokens for reply in replies)
    return BudgetResult(
        None if answer is None else str(answer),
        used + max(lengths, default=0),
        tokens,
        outline.seconds + max((reply.seconds for reply in replies), default=0.0),
        (prompt_tokens + tokens) * setting.engine.model.pool.bytes_per_token,
    )


def _step(worker: str, reply: Reply, begun: int) -> dict[str, Any]:
    """The step in the form that a transcript stores."""
    return {
        "worker": worker,
        "index": 1,
        "text": reply.text,
        "begun": begun,
        "ended": begun + len(reply.tokens),
        "asked": "",
        "answer": None,
    }
