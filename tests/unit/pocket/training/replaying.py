"""Real sessions in which all say what the teacher's team says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hogwild_agents.engine import SamplingParams
from hogwild_agents.pocket import team_settings
from hogwild_agents.pocket.training.teacher import Transcript
from hogwild_agents.team import InterruptContext, RedundancyCheck, Team
from hogwild_agents.team import events as ev
from hogwild_agents.team.interrupts import QUESTION
from hogwild_agents.team.steps import prefix
from tests.unit.pocket.training.playing import (
    drawn,
    lead,
    numbered,
    prompt_of,
    replying,
    text_of,
    thinking,
    tokenizer,
)
from tests.unit.team.voices import hold


def replay(
    transcript: Transcript,
    problem: str | list[dict[str, Any]],
    tools: Sequence[dict[str, Any]] = (),
    finisher: str = "answer",
) -> tuple[ev.Result, list[ev.Event]]:
    """A real session whose streams draw a transcript's tokens, and whose interrupts are its."""
    words = {
        (name, index): text_of(lead(step)).removeprefix(prefix(name, index))
        for name, index, step in numbered(transcript)
    }

    def force(context: InterruptContext) -> str:
        return words[context.worker, context.index].removesuffix(QUESTION)

    class Ask:
        """The check, at the teacher's times."""

        read = RedundancyCheck().read

        def __call__(self, context: InterruptContext) -> str | None:
            return QUESTION if words[context.worker, context.index].endswith(QUESTION) else None

    told = team_settings(transcript.workers) | {"sampling": SamplingParams(seed=0)}
    told |= {"finisher": finisher}
    if transcript.workers > 1:
        told |= {"layout": transcript.layout, "interrupts": [force, Ask()]}
    players = Team(tokenizer(), **told)
    assert transcript.prompt == prompt_of(players, problem, tools)
    lines: dict[int, list[int]] = {place: [] for place in range(transcript.workers)}
    for step in thinking(transcript):
        lines[step.worker] += [token.id for token in drawn(step)]
    lines[transcript.workers] = [token.id for token in replying(transcript)]
    if players.replies_at_once:
        lines[1] = lines.pop(0) + lines[1]
    return hold(players.session(problem, tools=tools), lines)


def thoughts(events: list[ev.Event], workers: int) -> list[tuple[Any, ...]]:
    """What was thought, by whom, and when; the one step of one alone is never told to begin."""
    return [
        (type(event), event.at, event.worker, event.text)
        for event in events
        if isinstance(event, ev.Token) or (workers > 1 and isinstance(event, ev.StepBegun))
    ]
