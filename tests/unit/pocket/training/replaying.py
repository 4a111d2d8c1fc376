"""Real sessions whose workers write what the teacher's team writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hogwild_agents.engine import SamplingParams
from hogwild_agents.pocket import team_settings
from hogwild_agents.pocket.training.teacher import TaughtTranscript
from hogwild_agents.team import InterruptContext, RedundancyCheck, Team
from hogwild_agents.team import events as ev
from hogwild_agents.team.redundancy_check import QUESTION
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
    transcript: TaughtTranscript,
    problem: str | list[dict[str, Any]],
    tools: Sequence[dict[str, Any]] = (),
    finisher: str = "answer",
) -> tuple[ev.Result, list[ev.Event]]:
    """Runs a real session with a transcript's tokens and interrupts."""
    words = {
        (name, index): text_of(lead(step)).removeprefix(prefix(name, index))
        for name, index, step in numbered(transcript)
    }

    def force(context: InterruptContext) -> str:
        return words[context.worker, context.index].removesuffix(QUESTION)

    class Ask:
        """The redundancy check, in the teacher's steps."""

        read = RedundancyCheck().read

        def __call__(self, context: InterruptContext) -> str | None:
            return QUESTION if words[context.worker, context.index].endswith(QUESTION) else None

    settings = team_settings(transcript.workers) | {"sampling": SamplingParams(seed=0)}
    settings |= {"finisher": finisher}
    if transcript.workers > 1:
        settings |= {"layout": transcript.layout, "interrupts": [force, Ask()]}
    players = Team(tokenizer(), **settings)
    assert transcript.prompt == prompt_of(players, problem, tools)
    lines: dict[int, list[int]] = {place: [] for place in range(transcript.workers)}
    for step in thinking(transcript):
        lines[step.worker] += [token.id for token in drawn(step)]
    lines[transcript.workers] = [token.id for token in replying(transcript)]
    if players.replies_at_once:
        lines[1] = lines.pop(0) + lines[1]
    return hold(players.session(problem, tools=tools), lines)


def thoughts(events: list[ev.Event], workers: int) -> list[tuple[Any, ...]]:
    """All thoughts with worker and pass; a single worker's only step has no StepBegun event."""
    return [
        (type(event), event.at, event.worker, event.text)
        for event in events
        if isinstance(event, ev.Token) or (workers > 1 and isinstance(event, ev.StepBegun))
    ]
