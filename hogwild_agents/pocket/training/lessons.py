"""Lessons: the sessions that the pocket model learns from, any number of them, each from a seed."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from hogwild_agents.pocket import MOST_WORKERS, team_settings
from hogwild_agents.pocket.tasks import TaskList, make_problem
from hogwild_agents.pocket.tokenizer import build_tokenizer
from hogwild_agents.pocket.training.dialogues import (
    Dialogue,
    make_dialogue,
    message,
    other_question,
    some_tools,
)
from hogwild_agents.pocket.training.packing import Packed, pack
from hogwild_agents.pocket.training.requests import final_list
from hogwild_agents.pocket.training.teacher import (
    NO_ACCIDENTS,
    REFUSAL,
    Accidents,
    Encode,
    Part,
    Plain,
    Teacher,
    Transcript,
)
from hogwild_agents.team import Team
from hogwild_agents.team.layouts import LAYOUTS

WORKERS = range(1, MOST_WORKERS + 1)
SHARES = {"combined": 0.7, "contiguous": 0.15, "interleaved": 0.15}
"""How often each layout is taught."""

CALLS = 0.65
"""The share of conversations about tools and structures; all others are lists of tasks."""


class Lessons:
    """Makes lessons.

    Args:
        seed: Another seed gives other lessons.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        tokenizer = build_tokenizer()
        self._teams = {
            (layout, workers): Team(tokenizer, **team_settings(workers) | {"layout": layout})
            for layout in LAYOUTS
            for workers in WORKERS
        }
        team = self._teams["combined", 1]
        self._encode: Encode = lru_cache(maxsize=200_000)(team.tokenizer.encode)
        (self._end,) = team.tokenizer.ends

    def lesson(self, name: str, progress: float) -> Packed:
        """The lesson of this name, for a model that has had such a share of its training."""
        transcript = self.transcript(name, progress)
        team = self._teams["combined", transcript.workers]
        return pack(transcript, team.header_tokens())

    def transcript(self, name: str, progress: float) -> Transcript:
        """The session that the lesson shows."""
        rng = random.Random(f"lesson {self._seed} {name}")
        workers = rng.choices(WORKERS, (2, 3, 2, 3) if progress > 0.1 else (4, 2, 1, 1))[0]
        layout = rng.choices([*LAYOUTS], [SHARES[name] for name in LAYOUTS])[0]
        team = self._teams[layout, workers]
        if progress > 0.1 and rng.random() < CALLS:
            asked = make_dialogue(rng)
        else:
            asked = self._tasks(rng, progress)
        prompt = team.prompt_tokens(asked.messages, asked.tools)
        accidents = NO_ACCIDENTS if rng.random() < 0.4 else Accidents()
        return Teacher(
            asked.problem,
            team.workers,
            layout,
            self._encode,
            rng,
            accidents,
            reply=asked.reply,
            end=self._end,
        ).play(prompt)

    def _tasks(self, rng: random.Random, progress: float) -> Dialogue:
        """A list of tasks as a user types it, maybe after an earlier one."""
        messages: list[dict[str, Any]] = []
        if progress > 0.3 and rng.random() < 0.06:
            earlier = self._problem(rng, rng.randint(1, 3))
            messages += [message(_typed(rng, earlier)), message(final_list(earlier), "assistant")]
        tools = some_tools(rng) if rng.random() < 0.06 else []
        if rng.random() < 0.03:
            messages.append(message(other_question(rng)))
            reply = [Part(REFUSAL)] if tools else None
            return Dialogue(messages, tools, Plain(REFUSAL), reply)
        problem = self._problem(rng, _size(rng, progress))
        messages.append(message(_typed(rng, problem)))
        reply = [Part(final_list(problem))] if rng.random() < 0.1 else None
        return Dialogue(messages, tools, problem, reply)

    def _problem(self, rng: random.Random, size: int) -> TaskList:
        return make_problem(rng.getrandbits(64), size, split="train")


def _size(rng: random.Random, progress: float) -> int:
    """How many tasks: few at first, mostly six in the end."""
    if progress < 0.15:
        return rng.choice((1, 2, 2, 3, 3))
    if progress < 0.4:
        return rng.choice((2, 3, 4, 4, 5, 6))
    return rng.choice((1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 7, 8))


def _typed(rng: random.Random, problem: TaskList) -> str:
    """A problem as some user would type it."""
    if rng.random() < 0.75:
        return problem.text
    text = problem.text.split("\n", 1)[1]
    if len(problem.tasks) == 1 and rng.random() < 0.5:
        text = problem.tasks[0].text
    if rng.random() < 0.5:
        text = text.replace("\n", rng.choice((" ", ", ", "; ")))
    if rng.random() < 0.3:
        text = text.replace(" + ", "+").replace(" - ", "-")
    return (
        rng.choice(("", "", "Solve: ", "Please solve these tasks.\n", "Solve these tasks: ")) + text
    )
