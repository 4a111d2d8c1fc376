"""What workers did, read from what they wrote and from the pass in which they wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hogwild_agents.pocket.tasks import TaskList, score
from hogwild_agents.pocket.training.dialogues import Dialogue
from hogwild_agents.team.events import Event, Result, StepBegun, Token
from hogwild_agents.team.interrupts import QUESTION

_CLAIM = re.compile(r"(?:^|(?<=\. )|(?<=no, )|(?<=: ))\(([a-h])\) |I take \(([a-h])\)")
_RESULT = re.compile(r", so \(([a-h])\) ")
_CALLED = re.compile(r'<tool_call>\s*\{"name": "([^"]*)"')
_CHECKING = re.compile(r"(?:^|(?<=\. )|(?<=no, )|(?<=: ))check \(")


def claimed(text: str) -> list[str]:
    """The labels of the tasks that are claimed in a step, in order."""
    return [found[1] or found[2] for found in _CLAIM.finditer(text)]


class Claim(NamedTuple):
    """A worker claimed a task; the others could know from pass `known` on."""

    known: int
    place: int
    label: str


@dataclass(slots=True)
class Written:
    """One step as it was written.

    Attributes:
        place: Its worker's place in the team.
        index: Its number.
        pieces: Its text in pieces, the system's first, each with the pass after which it stood.
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
        known = [at + 1 for text, at in self.pieces for _ in text]
        return [
            Claim(known[found.end() - 1], self.place, found[1] or found[2])
            for found in _CLAIM.finditer(self.text)
        ]

    @property
    def solved(self) -> list[str]:
        """The tasks that it worked out, if it does not check another's."""
        return [] if _CHECKING.search(self.text) else _RESULT.findall(self.text)

    @property
    def in_hand(self) -> Claim | None:
        """What it worked out last, with its first claim for that."""
        last = self.solved[-1:]
        return next((claim for claim in self.claims if claim.label in last), None)


class Check(NamedTuple):
    """A redundancy check: whether the work was redundant, and what the worker said."""

    truth: bool
    said: bool | None


@dataclass(frozen=True, slots=True)
class Session:
    """A finished session: its problem, its result, and the steps as they were written."""

    problem: TaskList
    result: Result
    steps: Sequence[Written]

    @property
    def right(self) -> float:
        """Share of the tasks answered right."""
        return score(self.problem, self.result.answer or "")

    @property
    def repeated(self) -> int:
        """Results worked out although another step had them; checks do not count."""
        solved = [label for step in self.steps for label in step.solved]
        return len(solved) - len(set(solved))

    @property
    def checks(self) -> list[Check]:
        """The redundancy checks, judged by who claimed what first."""
        claims = [claim for step in self.steps for claim in step.claims]
        steps = {(step.place, step.index): step for step in self.steps}
        judged = []
        for asked in self.result.interruptions:
            if asked.text != QUESTION:
                continue
            place = self.result.workers.index(asked.worker)
            step = steps[place, asked.index]
            forced = bool(claimed(step.pieces[0][0]))  # by the system's own words
            mine = step.claims[0] if forced else steps[place, asked.index - 1].in_hand
            truth = mine is not None and any(
                claim.label == mine.label and claim.place != place and claim[:2] < mine[:2]
                for claim in claims
            )
            judged.append(Check(truth, asked.answer))
        return judged


@dataclass(frozen=True, slots=True)
class Reply:
    """What a team replied in a conversation."""

    dialogue: Dialogue
    result: Result

    @property
    def named(self) -> bool:
        """Whether it calls the function that is asked for, with whatever arguments."""
        mine, due = (_CALLED.match(text) for text in (self.result.reply, self.dialogue.text))
        return mine is not None and due is not None and mine[1] == due[1]

    @property
    def right(self) -> bool:
        """Whether it says what is due; keys and spaces of JSON may stand in any order."""
        return _tidy(self.result.reply) == _tidy(self.dialogue.text)


def _tidy(text: str) -> str:
    """A text with the JSON in it, if that is all but for the marks of a call, in one form."""
    found = re.fullmatch(r"(<tool_call>)?\s*(\{.*\})\s*(</tool_call>)?", text, re.DOTALL)
    try:
        given = json.loads(found[2]) if found else None
    except ValueError:
        given = None
    if found is None or given is None:
        return text
    return f"{found[1]}{json.dumps(given, sort_keys=True)}{found[3]}"


def read_steps(events: Iterable[Event], workers: Sequence[str]) -> list[Written]:
    """The steps of a session, from its events."""
    steps: list[Written] = []
    newest: dict[str, Written] = {}
    for event in events:
        if isinstance(event, StepBegun):
            place = workers.index(event.worker)
            newest[event.worker] = Written(place, event.index, [(event.text, event.at)])
            steps.append(newest[event.worker])
        elif isinstance(event, Token):
            if event.worker not in newest:  # a step that nobody began: one worker alone goes on
                newest[event.worker] = Written(workers.index(event.worker), 1, [])
                steps.append(newest[event.worker])
            newest[event.worker].pieces.append((event.text, event.at))
    return steps
