"""Skeleton-of-Thought (Ning et al., arXiv 2307.15337): an outline, then all its points at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import Reached, Said, Setting, say
from hogwild_agents.evaluation.strategies import Outcome

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
class Skeleton:
    """Skeleton-of-Thought: an outline first, then all of its points at once, apart."""

    points: int = 8

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
        """See `Strategy`. A point may take what the outline has left of a budget."""
        most = budgets[-1]
        outline = await say(setting, SKELETON.format(question=problem.question), seed, most)
        points = _POINT.findall(outline.text)[: self.points]
        used = len(outline.pieces)
        asked = [
            POINT.format(question=problem.question, skeleton=outline.text, index=n, point=point)
            for n, point in points
        ]
        said: list[Said] = []
        if used < most:
            said = await asyncio.gather(
                *(say(setting, text, seed + n, most - used) for n, text in enumerate(asked, 1))
            )
        steps = [_step("outline", outline, 0)]
        steps += [_step(f"point {n}", one, used) for (n, _), one in zip(points, said, strict=False)]
        return Outcome(
            {budget: _within(setting, budget, outline, said) for budget in budgets},
            tuple(step["worker"] for step in steps),
            tuple(steps),
            "\n\n".join(one.text for one in said),
        )


def _within(setting: Setting, budget: int, outline: Said, said: Sequence[Said]) -> Reached:
    """What there is after so many passes: the outline's come first."""
    used = min(budget, len(outline.pieces))
    texts = ["".join(one.pieces[: budget - used]) for one in said]
    written = [min(budget - used, len(one.pieces)) for one in said]
    found = setting.team(1, 0).answer.extract("\n\n".join(texts)) if any(texts) else None
    tokens = used + sum(written)
    read = outline.prompt + sum(one.prompt for one in said)
    return Reached(
        None if found is None else str(found),
        used + max(written, default=0),
        tokens,
        outline.seconds + max((one.seconds for one in said), default=0.0),
        (read + tokens) * setting.engine.model.pool.bytes_per_token,
    )


def _step(worker: str, said: Said, begun: int) -> dict[str, Any]:
    """As a transcript keeps it."""
    ended = begun + len(said.pieces)
    return {
        "worker": worker,
        "index": 1,
        "text": said.text,
        "begun": begun,
        "ended": ended,
        "asked": "",
        "answer": None,
    }
