"""Checks that the events of a session agree with its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hogwild_agents.team import (
    AnswerFound,
    Event,
    Finished,
    InterruptAnswered,
    InterruptAsked,
    NoteRead,
    ReplyToken,
    Result,
    SnapshotTaken,
    Started,
    StepBegun,
    StepCommitted,
    ThinkingEnded,
    Token,
)
from hogwild_agents.team.steps import SEPARATOR


@dataclass
class Listener:
    """What a listener knows after every event."""

    texts: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    indices: dict[str, int] = field(default_factory=dict)
    steps: list[Any] = field(default_factory=list)
    notes: list[Any] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    answered: list[Any] = field(default_factory=list)
    snapshots: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    reply: str = ""
    reply_tokens: int = 0
    reason: str | None = None

    def hear(self, event: Event) -> None:
        """Takes the next event."""
        match event:
            case StepBegun(worker=worker, index=index, text=text):
                assert index == self.indices.get(worker, 0) + 1
                assert not self.reason
                self.texts[worker], self.indices[worker] = text, index
                self.tokens.setdefault(worker, 0)
            case Token(worker=worker, text=text):
                assert not self.reason
                self.texts[worker] += text
                self.tokens[worker] += 1
            case StepCommitted(step=step):
                text = self.texts[step.worker]
                assert step.text in (text, text + SEPARATOR)
                assert step.index == self.indices[step.worker]
                self.texts[step.worker] = ""
                self.steps.append(step)
            case NoteRead(note=note):
                self.notes.append(note)
            case InterruptAsked(interruption=asked):
                assert asked.answer is None
                self.asked.append(asked)
            case InterruptAnswered(interruption=answered):
                assert answered.answer is not None
                self.answered.append(answered)
            case SnapshotTaken(snapshot=snapshot):
                self.snapshots.append(snapshot)
            case AnswerFound(worker=worker, answer=answer):
                self.answers.append((worker, answer))
            case ThinkingEnded(reason=reason):
                assert self.reason is None
                self.reason = reason
            case ReplyToken(text=text):
                assert self.reason
                self.reply += text
                self.reply_tokens += 1


def check_events(events: Sequence[Event], result: Result) -> Listener:
    """Asserts that the events give all facts of the result, in time and in order."""
    *before, last = events
    assert isinstance(last, Finished)
    assert last.result == result
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    listener = Listener()
    if not before:
        assert result.finish_reason in ("cancelled", "error")
        return listener
    assert isinstance(before[0], Started)
    assert not any(isinstance(event, (Started, Finished)) for event in before[1:])
    for event in before[1:]:
        listener.hear(event)
    assert listener.steps == list(result.steps)
    assert listener.notes == [part for part in result.history if part not in result.steps]
    assert listener.reply == result.reply
    assert listener.reply_tokens == result.reply_tokens
    assert {**dict.fromkeys(result.tokens, 0), **listener.tokens} == result.tokens
    for step in result.unfinished:
        assert step.text == listener.texts[step.worker]
        assert step.index == listener.indices[step.worker]
    if result.finish_reason not in ("cancelled", "error"):
        assert listener.reason == result.finish_reason
        assert (result.answer is None) == (not listener.answers)
    if listener.answers:
        assert len(listener.answers) == 1
        assert listener.answers[0][1] == result.answer
    key = [(i.name, i.worker, i.index, i.asked, i.text) for i in result.interruptions]
    assert [(i.name, i.worker, i.index, i.asked, i.text) for i in listener.asked] == key
    answers = [i.answer for i in result.interruptions if i.answer is not None]
    assert sorted(map(str, answers)) == sorted(str(i.answer) for i in listener.answered)
    assert len({snapshot.budget for snapshot in listener.snapshots}) == len(listener.snapshots)
    assert sorted(listener.snapshots, key=lambda s: s.budget) == list(result.snapshots)
    assert result.reading_passes >= 0
    return listener
