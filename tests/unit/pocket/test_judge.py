"""The judge: what it reads from a session is what the teacher meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.judge import Check, Reply, Session, Written, claimed, read_steps
from hogwild_agents.pocket.tasks import TaskList, make_problem
from hogwild_agents.pocket.training.dialogues import Dialogue, Kind, dialogues
from hogwild_agents.pocket.training.requests import written_call
from hogwild_agents.pocket.training.teacher import Part, Plain, Transcript
from hogwild_agents.team import Interruption, Result
from hogwild_agents.team import events as ev
from hogwild_agents.team.interrupts import QUESTION
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
PROBLEM = make_problem(0, 4)
several = st.integers(2, 4)
seen_in_time = st.sampled_from(["combined", "contiguous"])


def judged(problem: TaskList, transcript: Transcript) -> Session:
    """A transcript as a judge gets it."""
    result = result_of(transcript)
    return Session(problem, result, read_steps(events_of(transcript), result.workers))


# What the teacher did.


@many
@given(seeds, seen_in_time, several, sizes)
def test_checks(seed: int, layout: str, workers: int, size: int) -> None:
    """The judge and the teacher, who is truthful, agree in every check."""
    session = judged(*play(seed, layout, workers, size, TROUBLE))
    checks = session.checks
    assert len(checks) == len(session.result.interruptions)
    answered = [check for check in checks if check.said is not None]
    assert [check.truth for check in answered] == [check.said for check in answered]


def test_checks_of_both_kinds() -> None:
    """Hundreds of checks were compared: many true, most not, and almost all answered."""
    checks = [
        check
        for seed in range(100)
        for check in judged(*play(seed, "combined", 2 + seed % 3, 6, TROUBLE)).checks
    ]
    assert len(checks) > 300
    assert 0.1 < sum(check.truth for check in checks) / len(checks) < 0.5
    assert sum(check.said is None for check in checks) / len(checks) < 0.15


@many
@given(seeds, layouts, teams, sizes)
def test_steps(seed: int, layout: str, workers: int, size: int) -> None:
    """They are read as they were written."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    names = team(layout, workers).workers
    read = {(step.place, step.index): step for step in read_steps(events_of(transcript), names)}
    assert len(read) == len(transcript.steps)
    for name, index, step in numbered(transcript):
        written = read[names.index(name), index]
        begun = "" if workers == 1 else text_of(lead(step)).partition("]:** ")[2]
        assert written.text == begun + text_of(drawn(step))
        assert written.pieces[0] == (begun, step.tokens[0].written - 1)
        assert written.pieces[-1][1] == drawn(step)[-1].written - 1


@many
@given(seeds, seen_in_time, several, sizes, st.data())
def test_duplicates(seed: int, layout: str, workers: int, size: int, data: st.DataObject) -> None:
    """The teacher repeats nothing without accidents, and what is injected is counted."""
    session = judged(*play(seed, layout, workers, size))
    assert session.repeated == 0
    working = [step for step in session.steps if step.solved]
    again = data.draw(st.lists(st.sampled_from(working), max_size=4))
    copies = [replace(step, place=(step.place + 1) % workers, index=90) for step in again]
    assert replace(session, steps=[*session.steps, *copies]).repeated == len(again)


@many
@given(seeds, layouts, several, sizes)
def test_claims(seed: int, layout: str, workers: int, size: int) -> None:
    """A label is claimed where it is known: in the pass that writes its token."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    names = team(layout, workers).workers
    read = {(step.place, step.index): step for step in read_steps(events_of(transcript), names)}
    for name, index, step in numbered(transcript):
        written = read[names.index(name), index]
        assert [claim.label for claim in written.claims] == claimed(written.text)
        for claim in written.claims:
            assert claim.place == step.worker
            assert any(
                token.written == claim.known and claim.label in text_of([token])
                for token in step.tokens
            )
        if "check (" not in written.text and written.solved:
            assert written.in_hand is not None
            assert written.in_hand.label == written.solved[-1]


# By hand.


def step_of(place: int, index: int, begun: str, said: str, at: int) -> Written:
    """A step that begins after pass `at`, one character per pass."""
    pieces = [(letter, at + count) for count, letter in enumerate(said, 1)]
    return Written(place, index, [(begun, at), *pieces])


def session_of(*steps: Written, said: bool | None = None) -> Session:
    """A session of Alice and Bob in which every step that begins with the question is a check."""
    asked = tuple(
        Interruption("check", ("Alice", "Bob")[s.place], s.index, s.pieces[0][1], QUESTION, said)
        for s in steps
        if s.pieces[0][0].endswith(QUESTION)
    )
    result = Result(
        workers=("Alice", "Bob"),
        layout="combined",
        finish_reason="answer",
        timings=ev.Timings(None, None, None, 0.0),
        interruptions=asked,
    )
    return Session(PROBLEM, result, steps)


def solved(place: int, label: str, at: int, index: int = 1) -> Written:
    """A step that works out a task."""
    return step_of(place, index, "", f"({label}) 1 + 1: 1+1=2, so ({label}) 2.\n\n", at)


@pytest.mark.parametrize(
    ("mine", "other", "theirs", "truth"),
    [
        ("a", "a", 0, True),  # at the same time as one who is before in the team
        ("a", "a", 20, False),  # the other came later
        ("a", "b", 0, False),
        ("a", "b", 20, False),
    ],
)
def test_who_was_first(mine: str, other: str, theirs: int, truth: bool) -> None:
    """Of two who claim one task, the later one, or in one pass the later of the team, repeats."""
    bob = solved(1, mine, 0)
    check = step_of(1, 2, QUESTION, "no, (c) ", 60)
    session = session_of(solved(0, other, theirs), bob, check, said=truth)
    assert session.checks == [Check(truth, truth)]
    assert session.repeated == (mine == other)


def test_forced_claims() -> None:
    """Whoever is made to claim a task is asked about that one."""
    alice = solved(0, "a", 0)
    for label, truth in (("a", True), ("b", False)):
        bob = step_of(1, 2, f"I take ({label}). {QUESTION}", "yes, ", 60)
        assert session_of(alice, solved(1, "c", 0), bob, said=True).checks == [Check(truth, True)]


def test_forced_claims_stand_from_their_first_word() -> None:
    """Whoever claims what another was made to claim just before is the one who repeats."""
    forced = step_of(0, 2, "I take (a). ", "(a) 1 + 1: 1+1=2, so (a) 2.\n\n", 10)
    rash = step_of(1, 2, "", "(a) wait, Alice has (a). ", 9)
    check = step_of(0, 3, QUESTION, "no, (c) ", 60)
    assert session_of(forced, rash, check, said=False).checks == [Check(False, False)]


def test_nothing_in_hand() -> None:
    """Whoever has waited or checked does nothing that is redundant."""
    said = ["wait ... ...", "check (a) 1 + 1: 1+1=2, so (a) 2, right.\n\n", "wait, Bob has (a). "]
    for text in said:
        steps = solved(0, "a", 0), step_of(1, 1, "", text, 0), step_of(1, 2, QUESTION, "no, ", 60)
        session = session_of(*steps, said=False)
        assert session.checks == [Check(False, False)]
        assert session.repeated == 0


def test_scores() -> None:
    """The answer counts, or nothing."""
    session = session_of(solved(0, "a", 0))
    assert session.right == 0
    answer = ", ".join(f"({label}) {right}" for label, right in PROBLEM.answers.items())
    assert replace(session, result=replace(session.result, answer=answer)).right == 1


def test_texts_that_claim() -> None:
    """A label claims where a worker begins with it, and nowhere else."""
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


def reply_of(dialogue: Dialogue, text: str) -> Reply:
    """What somebody replied."""
    return Reply(dialogue, replace(session_of().result, reply=text))


@many
@given(seeds, st.sampled_from(["call", "result", "structured", "refusal", "forced"]))
def test_what_is_due_is_right(seed: int, kind: Kind) -> None:
    """And nothing else; a call names the function that is asked for."""
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
def test_calls_are_read(text: str, named: bool, right: bool) -> None:
    """By what they mean, and types count."""
    due = Part(written_call("f", {"a": 1, "b": "x"}))
    reply = reply_of(Dialogue([], [], Plain("f"), [due], "call"), text)
    assert (reply.named, reply.right) == (named, right)
