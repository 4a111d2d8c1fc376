"""Judges what workers did, by what they wrote and by the forward pass in which they wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hogwild_agents.pocket.tasks import TaskList, score
from hogwild_agents.team.events import Event, Result, StepBegun, Token
from hogwild_agents.team.redundancy_check import QUESTION

_CLAIM = re.compile(r"(?:^|(?<=\. )|(?<=no, )|(?<=: ))\(([a-h])\) |I take \(([a-h])\)")
_RESULT = re.compile(r", so \(([a-h])\) ")
_CALLED = re.compile(r'<tool_call>\s*\{"name": "([^"]*)"')
_CHECKING = re.compile(r"(?:^|(?<=\. )|(?<=no, )|(?<=: ))check \(")


def claimed(text: str) -> list[str]:
    """The labels of the tasks that a step claims, in order."""
    return [match[1] or match[2] for match in _CLAIM.finditer(text)]


class Claim(NamedTuple):
    """A worker claimed a task; the others could see it from pass `visible_from` on."""

    visible_from: int
    place: int
    label: str


@dataclass(slots=True)
class WrittenStep:
    """One step as it was written.

    Attributes:
        place: Its worker's place in the team.
        index: Its number.
        pieces: Its text in pieces, first the system's. With each piece stands the number of the
            pass after which the piece was there.
    """

    place: int
    index: int
    pieces: list[tuple[str, int]]

    @property
    def text(self) -> str:
        """The step without its prefix."""
        return "".join(text for text, _ in self.pieces)

    @property
    def claims(self) -> list[Claim]:
        """The tasks that its worker claimed in it."""
        visible_from = [at + 1 for text, at in self.pieces for _ in text]
        return [
            Claim(visible_from[match.end() - 1], self.place, match[1] or match[2])
            for match in _CLAIM.finditer(self.text)
        ]

    @property
    def solved(self) -> list[str]:
        """The tasks that it worked out; none if it checks another worker's task."""
        return [] if _CHECKING.search(self.text) else _RESULT.findall(self.text)

    @property
    def in_hand(self) -> Claim | None:
        """The first claim of the task that it worked out last."""
        last = self.solved[-1:]
        return next((claim for claim in self.claims if claim.label in last), None)


class JudgedCheck(NamedTuple):
    """A redundancy check: whether the work was redundant, and what the worker answered."""

    redundant: bool
    answer: bool | None


@dataclass(frozen=True, slots=True)
class JudgedSession:
    """A finished session: its question, its result, and the steps as they were written."""

    task_list: TaskList
    result: Result
    steps: Sequence[WrittenStep]

    @property
    def right(self) -> float:
        """Share of the tasks answered right."""
        return score(self.task_list, self.result.answer or "")

    @property
    def repeated(self) -> int:
        """Results worked out again after another step had them; checks do not count."""
        solved = [label for step in self.steps for label in step.solved]
        return len(solved) - len(set(solved))

    @property
    def checks(self) -> list[JudgedCheck]:
        """The redundancy checks; work is redundant if another worker claimed the task first."""
        claims = [claim for step in self.steps for claim in step.claims]
        steps = {(step.place, step.index): step for step in self.steps}
        checks = []
        for interruption in self.result.interruptions:
            if interruption.text != QUESTION:
                continue
            place, index = self.result.workers.index(interruption.worker), interruption.index
            step = steps[place, index]
            forced = bool(claimed(step.pieces[0][0]))  # the system's words claim a task
            own = step.claims[0] if forced else steps[place, index - 1].in_hand
            redundant = own is not None and any(
                claim.label == own.label and claim.place != place and claim[:2] < own[:2]
                for claim in claims
            )
            checks.append(JudgedCheck(redundant, interruption.answer))
        return checks


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """A team's reply in a conversation.

    Attributes:
        kind: What the conversation asks for.
        expected: The right reply.
        result: The reply, and what it took.
    """

    kind: str
    expected: str
    result: Result

    @property
    def named(self) -> bool:
        """Whether it calls the right function; the arguments do not matter."""
        called, expected = (_CALLED.match(text) for text in (self.result.reply, self.expected))
        return called is not None and expected is not None and called[1] == expected[1]

    @property
    def right(self) -> bool:
        """Whether it is the right reply; order of keys and spaces of JSON do not matter."""
        return _normalize(self.result.reply) == _normalize(self.expected)


def _normalize(text: str) -> str:
    """A text; if it is JSON, with or without the marks of a call, the JSON in a standard format."""
    match = re.fullmatch(r"(<tool_call>)?\s*(\{.*\})\s*(</tool_call>)?", text, re.DOTALL)
    if match is None:
        return text
    try:
        value = json.loads(match[2])
    except ValueError:
        return text
    return f"{match[1]}{json.dumps(value, sort_keys=True)}{match[3]}"


def read_steps(events: Iterable[Event], workers: Sequence[str]) -> list[WrittenStep]:
    """The steps of a session, read from its events."""
    steps: list[WrittenStep] = []
    newest: dict[str, WrittenStep] = {}
    for event in events:
        if isinstance(event, StepBegun):
            place = workers.index(event.worker)
            newest[event.worker] = WrittenStep(place, event.index, [(event.text, event.at)])
            steps.append(newest[event.worker])
        elif isinstance(event, Token):
            if event.worker not in newest:  # a single worker's only step has no StepBegun
                newest[event.worker] = WrittenStep(workers.index(event.worker), 1, [])
                steps.append(newest[event.worker])
            newest[event.worker].pieces.append((event.text, event.at))
    return steps
