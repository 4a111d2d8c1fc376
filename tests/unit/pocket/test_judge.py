"""The judge: it reads from a session what the teacher meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.judge import (
    JudgedCheck,
    JudgedReply,
    JudgedSession,
    WrittenStep,
    claimed,
    read_steps,
)
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.training.dialogues import Dialogue, DialogueKind, dialogues
from hogwild_agents.pocket.training.requests import written_call
from hogwild_agents.pocket.training.teacher import DirectAnswer, ReplyPart, TaughtTranscript
from hogwild_agents.team import Interruption, Result
from hogwild_agents.team import events as ev
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.pocket.training.playing import (
    TROUBLE,
    drawn,
    events_of,
    layouts,
    lead,
    numbered,
    play,
    result_of,
    seeds,
    sizes,
    team,
    teams,
    text_of,
)

many = settings(max_examples=100, deadline=None, derandomize=True)
PROBLEM = make_task_list(0, 4)
several = st.integers(2, 4)
seen_in_time = st.sampled_from(["combined", "contiguous"])


def judged(task_list: TaskList, transcript: TaughtTranscript) -> JudgedSession:
    """A transcript as the judge gets it."""
    result = result_of(transcript)
    return JudgedSession(task_list, result, read_steps(events_of(transcript), result.workers))


# What the teacher did.


@many
@given(seeds, seen_in_time, several, sizes)
def test_checks(seed: int, layout: str, workers: int, size: int) -> None:
    """The judge and the teacher, which tells the truth, agree in every check."""
    session = judged(*play(seed, layout, workers, size, TROUBLE))
    checks = session.checks
    assert len(checks) == len(session.result.interruptions)
    answered = [check for check in checks if check.answer is not None]
    assert [check.redundant for check in answered] == [check.answer for check in answered]


def test_checks_of_both_kinds() -> None:
    """Of hundreds of checks many find redundant work, most do not, and almost all are answered."""
    checks = [
        check
        for seed in range(100)
        for check in judged(*play(seed, "combined", 2 + seed % 3, 6, TROUBLE)).checks
    ]
    assert len(checks) > 300
    assert 0.1 < sum(check.redundant for check in checks) / len(checks) < 0.5
    assert sum(check.answer is None for check in checks) / len(checks) < 0.15


@many
@given(seeds, layouts, teams, sizes)
def test_steps(seed: int, layout: str, workers: int, size: int) -> None:
    """Steps are read as they were written."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    names = team(layout, workers).workers
    read = {(step.place, step.index): step for step in read_steps(events_of(transcript), names)}
    assert len(read) == len(transcript.steps)
    for name, index, step in numbered(transcript):
        written = read[names.index(name), index]
        beginning = "" if workers == 1 else text_of(lead(step)).partition("]:** ")[2]
        assert written.text == beginning + text_of(drawn(step))
        assert written.pieces[0] == (beginning, step.tokens[0].written - 1)
        assert written.pieces[-1][1] == drawn(step)[-1].written - 1


@many
@given(seeds, seen_in_time, several, sizes, st.data())
def test_duplicates(seed: int, layout: str, workers: int, size: int, data: st.DataObject) -> None:
    """The teacher repeats nothing without accidents; injected copies are counted."""
    session = judged(*play(seed, layout, workers, size))
    assert session.repeated == 0
    working = [step for step in session.steps if step.solved]
    again = data.draw(st.lists(st.sampled_from(working), max_size=4))
    copies = [replace(step, place=(step.place + 1) % workers, index=90) for step in again]
    assert replace(session, steps=[*session.steps, *copies]).repeated == len(again)


@many
@given(seeds, layouts, several, sizes)
def test_claims(seed: int, layout: str, workers: int, size: int) -> None:
    """A claim is visible from the pass that writes its label's token."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    names = team(layout, workers).workers
    read = {(step.place, step.index): step for step in read_steps(events_of(transcript), names)}
    for name, index, step in numbered(transcript):
        written = read[names.index(name), index]
        assert [claim.label for claim in written.claims] == claimed(written.text)
        for claim in written.claims:
            assert claim.place == step.worker
            assert any(
                token.written == claim.visible_from and claim.label in text_of([token])
                for token in step.tokens
            )
        if "check (" not in written.text and written.solved:
            assert written.in_hand is not None
            assert written.in_hand.label == written.solved[-1]


# By hand.


def step_of(place: int, index: int, beginning: str, text: str, at: int) -> WrittenStep:
    """A step that begins after pass `at`; its worker writes one character per pass."""
    pieces = [(letter, at + count) for count, letter in enumerate(text, 1)]
    return WrittenStep(place, index, [(beginning, at), *pieces])


def session_of(*steps: WrittenStep, answer: bool | None = None) -> JudgedSession:
    """A session of Alice and Bob in which every step that begins with the question is a check."""
    interruptions = tuple(
        Interruption("check", ("Alice", "Bob")[s.place], s.index, s.pieces[0][1], QUESTION, answer)
        for s in steps
        if s.pieces[0][0].endswith(QUESTION)
    )
    result = Result(
        workers=("Alice", "Bob"),
        layout="combined",
        finish_reason="answer",
        timings=ev.Timings(None, None, None, 0.0),
        interruptions=interruptions,
    )
    return JudgedSession(PROBLEM, result, steps)


def solved(place: int, label: str, at: int, index: int = 1) -> WrittenStep:
    """A step that works out a task."""
    return step_of(place, index, "", f"({label}) 1 + 1: 1+1=2, so ({label}) 2.\n\n", at)


@pytest.mark.parametrize(
    ("label", "other_label", "other_start", "redundant"),
    [
        ("a", "a", 0, True),  # at the same time as a worker before it in the team
        ("a", "a", 20, False),  # the other came later
        ("a", "b", 0, False),
        ("a", "b", 20, False),
    ],
)
def test_first_claim(label: str, other_label: str, other_start: int, redundant: bool) -> None:
    """Of two claims of one task, the first counts; in one pass, that of the first in the team."""
    bob = solved(1, label, 0)
    check = step_of(1, 2, QUESTION, "no, (c) ", 60)
    session = session_of(solved(0, other_label, other_start), bob, check, answer=redundant)
    assert session.checks == [JudgedCheck(redundant, redundant)]
    assert session.repeated == (label == other_label)


def test_forced_claims() -> None:
    """A worker that is made to claim a task is asked about that task."""
    alice = solved(0, "a", 0)
    for label, redundant in (("a", True), ("b", False)):
        bob = step_of(1, 2, f"I take ({label}). {QUESTION}", "yes, ", 60)
        session = session_of(alice, solved(1, "c", 0), bob, answer=True)
        assert session.checks == [JudgedCheck(redundant, True)]


def test_forced_claims_count_from_the_start_of_their_step() -> None:
    """A worker that claims the same task just afterwards is the one that repeats."""
    forced = step_of(0, 2, "I take (a). ", "(a) 1 + 1: 1+1=2, so (a) 2.\n\n", 10)
    rash = step_of(1, 2, "", "(a) wait, Alice has (a). ", 9)
    check = step_of(0, 3, QUESTION, "no, (c) ", 60)
    assert session_of(forced, rash, check, answer=False).checks == [JudgedCheck(False, False)]


def test_nothing_in_hand() -> None:
    """A worker that has waited or checked does nothing redundant."""
    texts = ["wait ... ...", "check (a) 1 + 1: 1+1=2, so (a) 2, right.\n\n", "wait, Bob has (a). "]
    for text in texts:
        steps = solved(0, "a", 0), step_of(1, 1, "", text, 0), step_of(1, 2, QUESTION, "no, ", 60)
        session = session_of(*steps, answer=False)
        assert session.checks == [JudgedCheck(False, False)]
        assert session.repeated == 0


def test_scores() -> None:
    """Only the answer counts."""
    session = session_of(solved(0, "a", 0))
    assert session.right == 0
    answer = ", ".join(f"({label}) {right}" for label, right in PROBLEM.answers.items())
    assert replace(session, result=replace(session.result, answer=answer)).right == 1


def test_texts_that_claim() -> None:
    """A label claims a task only where a worker begins with it."""
    claims = {
        "(a) reverse ab, so (a) ba.": ["a"],
        "wait, Bob has (a). (b) reverse": ["b"],
        "I take (c). (c) sort": ["c", "c"],
        f"I take (d). {QUESTION}no, (d) ": ["d", "d"],
        f"{QUESTION}no, (e) ": ["e"],
        f"{QUESTION}yes, Bob has (e). (f) ": ["f"],
        "check (a) reverse ab, so (a) ba, right.": [],
        "\\boxed{(a) 5, (b) 6}.": [],
        "wait ... ...": [],
        "": [],
    }
    for text, labels in claims.items():
        assert claimed(text) == labels, text


# Replies.


def reply_of(dialogue: Dialogue, text: str) -> JudgedReply:
    """A reply in a conversation."""
    return JudgedReply(dialogue.kind, dialogue.text, replace(session_of().result, reply=text))


@many
@given(seeds, st.sampled_from(["call", "result", "structured", "refusal", "forced"]))
def test_only_the_expected_reply_is_right(seed: int, kind: DialogueKind) -> None:
    """A call names the function that is asked for."""
    dialogue = next(dialogues(seed, kind))
    reply = reply_of(dialogue, dialogue.text)
    assert reply.right
    assert reply.named == (kind in ("call", "forced"))
    for other in ("", dialogue.text[:-1], f"{dialogue.text}.", f"So: {dialogue.text}"):
        assert not reply_of(dialogue, other).right


@pytest.mark.parametrize(
    ("text", "named", "right"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": "x"}}\n</tool_call>', True, True),
        ('<tool_call>{"name": "f", "arguments": {"b":"x", "a":1}}</tool_call>', True, True),
        ('<tool_call>{"name": "f", "arguments": {"a": 1.0, "b": "x"}}</tool_call>', True, False),
        ('<tool_call>{"name": "f", "arguments": {"a": true, "b": "x"}}</tool_call>', True, False),
        ('<tool_call>{"name": "f", "arguments": {"a": 1', True, False),
        ('<tool_call>{"name": "g", "arguments": {"a": 1, "b": "x"}}</tool_call>', False, False),
        ('{"name": "f", "arguments": {"a": 1, "b": "x"}}', False, False),
        ("f(1, x)", False, False),
        ("", False, False),
    ],
)
def test_calls_are_compared_by_meaning(text: str, named: bool, right: bool) -> None:
    """Order and spaces do not matter; types do."""
    expected = ReplyPart(written_call("f", {"a": 1, "b": "x"}))
    reply = reply_of(Dialogue([], [], DirectAnswer("f"), [expected], "call"), text)
    assert (reply.named, reply.right) == (named, right)
