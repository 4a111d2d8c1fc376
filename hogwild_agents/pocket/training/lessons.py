"""Lessons: the sessions that the pocket model learns from; each is made from a seed."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from hogwild_agents.pocket import MAX_WORKERS, team_settings
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.tokenizer import build_tokenizer
from hogwild_agents.pocket.training.dialogues import (
    Dialogue,
    make_dialogue,
    message,
    other_question,
    some_tools,
)
from hogwild_agents.pocket.training.packing import PackedTranscript, pack
from hogwild_agents.pocket.training.requests import final_list
from hogwild_agents.pocket.training.teacher import (
    NO_ACCIDENTS,
    REFUSAL,
    Accidents,
    DirectAnswer,
    Encode,
    ReplyPart,
    TaughtTranscript,
    Teacher,
)
from hogwild_agents.team import Team
from hogwild_agents.team.layouts import LAYOUTS

WORKERS = range(1, MAX_WORKERS + 1)
LAYOUT_SHARES = {"combined": 0.7, "contiguous": 0.15, "interleaved": 0.15}
"""Shares of the lessons in each layout."""

DIALOGUE_SHARE = 0.65
"""Share of the lessons about tools and structures; all others are lists of tasks."""


class Lessons:
    """Makes lessons; another seed gives other lessons."""

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

    def lesson(self, name: str, progress: float) -> PackedTranscript:
        """The lesson of this name; `progress` is the share of the training that is done."""
        transcript = self.transcript(name, progress)
        team = self._teams["combined", transcript.workers]
        return pack(transcript, team.header_tokens())

    def transcript(self, name: str, progress: float) -> TaughtTranscript:
        """The session that the lesson shows."""
        rng = random.Random(f"lesson {self._seed} {name}")
        workers = rng.choices(WORKERS, (2, 3, 2, 3) if progress > 0.1 else (4, 2, 1, 1))[0]
        layout = rng.choices([*LAYOUTS], [LAYOUT_SHARES[name] for name in LAYOUTS])[0]
        team = self._teams[layout, workers]
        if progress > 0.1 and rng.random() < DIALOGUE_SHARE:
            dialogue = make_dialogue(rng)
        else:
            dialogue = self._tasks(rng, progress)
        prompt = team.prompt_tokens(dialogue.messages, dialogue.tools)
        accidents = NO_ACCIDENTS if rng.random() < 0.4 else Accidents()
        return Teacher(
            dialogue.problem,
            team.workers,
            layout,
            self._encode,
            rng,
            accidents,
            reply=dialogue.reply,
            end=self._end,
        ).play(prompt)

    def _tasks(self, rng: random.Random, progress: float) -> Dialogue:
        """A list of tasks as a user types it, perhaps after an earlier one."""
        messages: list[dict[str, Any]] = []
        if progress > 0.3 and rng.random() < 0.06:
            earlier = self._task_list(rng, rng.randint(1, 3))
            messages += [message(_typed(rng, earlier)), message(final_list(earlier), "assistant")]
        tools = some_tools(rng) if rng.random() < 0.06 else []
        if rng.random() < 0.03:
            messages.append(message(other_question(rng)))
            reply = [ReplyPart(REFUSAL)] if tools else None
            return Dialogue(messages, tools, DirectAnswer(REFUSAL), reply)
        task_list = self._task_list(rng, _size(rng, progress))
        messages.append(message(_typed(rng, task_list)))
        reply = [ReplyPart(final_list(task_list))] if rng.random() < 0.1 else None
        return Dialogue(messages, tools, task_list, reply)

    def _task_list(self, rng: random.Random, size: int) -> TaskList:
        return make_task_list(rng.getrandbits(64), size, split="train")


def _size(rng: random.Random, progress: float) -> int:
    """Number of tasks: few at first, later mostly six."""
    if progress < 0.15:
        return rng.choice((1, 2, 2, 3, 3))
    if progress < 0.4:
        return rng.choice((2, 3, 4, 4, 5, 6))
    return rng.choice((1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 7, 8))


def _typed(rng: random.Random, task_list: TaskList) -> str:
    """A list of tasks as some user would type it."""
    if rng.random() < 0.75:
        return task_list.text
    text = task_list.text.split("\n", 1)[1]
    if len(task_list.tasks) == 1 and rng.random() < 0.5:
        text = task_list.tasks[0].text
    if rng.random() < 0.5:
        text = text.replace("\n", rng.choice((" ", ", ", "; ")))
    if rng.random() < 0.3:
        text = text.replace(" + ", "+").replace(" - ", "-")
    return (
        rng.choice(("", "", "Solve: ", "Please solve these tasks.\n", "Solve these tasks: ")) + text
    )
