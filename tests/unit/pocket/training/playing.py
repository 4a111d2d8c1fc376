"""Sessions that the teacher plays, and how to read them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from hogwild_agents.pocket import team_settings
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.tokenizer import build_tokenizer
from hogwild_agents.pocket.training.dialogues import Dialogue, make_dialogue
from hogwild_agents.pocket.training.teacher import (
    NO_ACCIDENTS,
    Accidents,
    DirectAnswer,
    ReplyPart,
    TaughtStep,
    TaughtToken,
    TaughtTranscript,
    Teacher,
)
from hogwild_agents.team import Event, Interruption, RedundancyCheck, Result, Team, TeamTokenizer
from hogwild_agents.team import events as ev
from hogwild_agents.team.redundancy_check import QUESTION
from hogwild_agents.team.steps import prefix

TROUBLE = Accidents(forced=0.2, blunder=0.2, duplicate=0.2, wrong=0.1, asked=0.5)
"""More accidents than in lessons."""

seeds = st.integers(0, 2**32)
layouts = st.sampled_from(["combined", "contiguous", "interleaved"])
teams = st.integers(1, 4)
sizes = st.integers(1, 8)
accidents = st.sampled_from([NO_ACCIDENTS, Accidents(), TROUBLE])


@cache
def tokenizer() -> TeamTokenizer:
    """The pocket model's tokenizer, as teams use it."""
    return TeamTokenizer(build_tokenizer())


@cache
def team(layout: str = "combined", workers: int = 2, finisher: str = "answer") -> Team:
    """The team that the model is trained to be, or one that also replies."""
    settings = team_settings(workers) | {"layout": layout, "finisher": finisher}
    return Team(tokenizer(), **settings)


def prompt_of(
    team: Team, problem: str | list[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()
) -> list[int]:
    """All ids before the first that a worker draws."""
    session = team.session(problem, tools=tools)
    return [*session.prompt, *session._first_ids]


def play(
    seed: int,
    layout: str = "combined",
    workers: int = 2,
    size: int = 6,
    accidents: Accidents = NO_ACCIDENTS,
    reply: str | None = None,
) -> tuple[TaskList, TaughtTranscript]:
    """A list of tasks, and how the teacher's team solves it."""
    task_list = make_task_list(seed, size)
    players = team(layout, workers, "answer" if reply is None else "reply")
    parts = None if reply is None else [ReplyPart(reply)]
    teacher = _teacher(task_list, players, layout, seed, accidents, parts)
    return task_list, teacher.play(prompt_of(players, task_list.text))


def talk(
    seed: int, layout: str = "combined", workers: int = 2, accidents: Accidents = NO_ACCIDENTS
) -> tuple[Dialogue, TaughtTranscript]:
    """A conversation about tools or structures, and how the teacher's team continues it."""
    dialogue, players = make_dialogue(random.Random(seed)), team(layout, workers, "reply")
    teacher = _teacher(dialogue.problem, players, layout, seed, accidents, dialogue.reply)
    return dialogue, teacher.play(prompt_of(players, dialogue.messages, dialogue.tools))


def _teacher(
    problem: TaskList | DirectAnswer,
    players: Team,
    layout: str,
    seed: int,
    accidents: Accidents,
    reply: Sequence[ReplyPart] | None,
) -> Teacher:
    encode, rng = tokenizer().encode, random.Random(seed)
    names = players.workers
    return Teacher(problem, names, layout, encode, rng, accidents, reply=reply, end=end())


def end() -> int:
    """The id that ends a reply."""
    (end_id,) = tokenizer().ends
    return end_id


def lead(step: TaughtStep) -> list[TaughtToken]:
    """The tokens that the system wrote."""
    return [token for token in step.tokens if token.written == step.tokens[0].written]


def drawn(step: TaughtStep) -> list[TaughtToken]:
    """The tokens that the worker wrote, without the end of a reply."""
    return [token for token in step.tokens[len(lead(step)) :] if token.id != end()]


def thinking(transcript: TaughtTranscript) -> list[TaughtStep]:
    """All steps but the reply."""
    return [step for step in transcript.steps if step.tokens[0].written <= transcript.passes]


def replying(transcript: TaughtTranscript) -> list[TaughtToken]:
    """The tokens that were drawn after the thinking."""
    return [
        token
        for step in transcript.steps
        for token in step.tokens
        if token.written > transcript.passes + 1
    ]


def text_of(tokens: Sequence[TaughtToken]) -> str:
    """The text of tokens."""
    return tokenizer().decode([token.id for token in tokens])


def stated(step: TaughtStep) -> Any:
    """The final answer that a step states."""
    return team_settings()["answer"].find(text_of(drawn(step)))


def numbered(transcript: TaughtTranscript) -> Iterator[tuple[str, int, TaughtStep]]:
    """Every step but the reply with its worker's name and its number."""
    names, counts = team(workers=transcript.workers).workers, [0] * transcript.workers
    for step in thinking(transcript):
        counts[step.worker] += 1
        yield names[step.worker], counts[step.worker], step


def events_of(transcript: TaughtTranscript) -> list[Event]:
    """The events of a session of these steps without the reply, in a session's order."""
    events: list[tuple[tuple[int, ...], Event]] = []
    for name, index, step in numbered(transcript):
        at = step.tokens[0].written - 1
        text = text_of(lead(step)).removeprefix(prefix(name, index))
        text = "" if transcript.layout == "solo" else text
        events.append(((at, 1, step.worker), ev.StepBegun(at, 0.0, name, index, text)))
        for token in drawn(step):
            at = token.written - 1
            event = ev.Token(at, 0.0, name, token.id, text_of([token]))
            events.append(((at, 0, step.worker), event))
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def result_of(transcript: TaughtTranscript) -> Result:
    """The result of the session, as far as the judge reads it."""
    interruptions = [
        Interruption("check", name, index, step.tokens[0].written - 1, QUESTION, _answer(step))
        for name, index, step in numbered(transcript)
        if transcript.layout != "solo" and text_of(lead(step)).endswith(QUESTION)
    ]
    settings: dict[str, Any] = {"finish_reason": "answer", "interruptions": tuple(interruptions)}
    names = team(workers=transcript.workers).workers
    return Result(
        workers=names,
        layout=transcript.layout,
        timings=ev.Timings(None, None, None, 0.0),
        **settings,
    )


def _answer(step: TaughtStep) -> bool | None:
    """A worker's answer to its check."""
    return RedundancyCheck().read(text_of(drawn(step)))
