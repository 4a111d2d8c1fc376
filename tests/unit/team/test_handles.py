"""Saying, stopping and cancelling at odd times, and tokenizers that somebody else uses too."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hogwild_agents.engine import Engine, SamplingParams
from hogwild_agents.errors import InvalidAnswerFormatError, InvalidInterruptError, InvalidTeamError
from hogwild_agents.team import (
    InterruptContext,
    NoteRead,
    RedundancyCheck,
    Team,
    TeamTokenizer,
    Token,
)
from tests.unit.team import tokenizers as small
from tests.unit.team.voices import STEP, WAIT, make, model, voices

TOKENIZER = TeamTokenizer(small.plain_bytes())


def test_what_is_said_before_stop_is_heard() -> None:
    """The most natural use of the two."""
    with voices(TOKENIZER, {}) as engine:
        handle = engine.submit(make(TOKENIZER, budget=500, reply_tokens=2).session("Q?"))
        next(event for event in handle if isinstance(event, Token))
        handle.say("Answer in French.")
        handle.stop()
        result = handle.result(WAIT)
    assert result.finish_reason == "stopped"
    assert result.unheard == ()
    assert [str(note) for note in result.history][-1].endswith("Answer in French.\n\n")


def test_much_is_said_at_once() -> None:
    """All that was said until a pass is read in one; the team goes on thinking."""
    with voices(TOKENIZER, {}) as engine:
        session = make(TOKENIZER, budget=5, reply_tokens=1).session("Q?")
        for number in range(9):
            session.hear(f"Note {number}.")
        handle = engine.submit(session)
        result = handle.result(WAIT)
        notes = [event.note.text for event in handle if isinstance(event, NoteRead)]
    assert notes == [f"Note {number}." for number in range(9)]
    assert result.passes == 5
    assert result.reading_passes == 3  # the prompt, the headers, the notes


def test_odd_notes() -> None:
    """Half a surrogate pair is mended; what is too long stays unheard and holds up nothing."""
    with voices(TOKENIZER, {}) as engine:
        session = make(TOKENIZER, budget=5, reply_tokens=1).session("Q?")
        for text in ("x" * model().max_length, "\ud800 hi"):
            session.hear(text)
        result = engine.submit(session).result(WAIT)
    assert result.unheard == ("x" * model().max_length,)
    assert len(result.history) == 1


def test_stop_waits_for_no_interrupt() -> None:
    """A reply comes even while an interrupt hangs; what it returns at last goes nowhere."""
    asked, free = threading.Event(), threading.Event()

    def hang(_: InterruptContext) -> str:
        asked.set()
        free.wait(WAIT)
        return "Too late. "

    with voices(TOKENIZER, {0: STEP}) as engine:
        team = make(TOKENIZER, interrupts=[hang], budget=500, reply_tokens=2)
        handle = engine.submit(team.session("Q?"))
        assert asked.wait(WAIT)
        handle.stop()
        result = handle.result(WAIT)
        free.set()
    assert result.finish_reason == "stopped"
    assert result.reply_tokens == 2
    assert result.interruptions == ()


def test_a_session_refused_may_be_submitted_elsewhere() -> None:
    """A refusal costs nothing: not even the session."""
    session = make(TOKENIZER, budget=3, reply_tokens=1).session("Q?")
    closed = Engine(model())
    closed.close()
    with pytest.raises(Exception, match="closed"):
        closed.submit(session)
    with voices(TOKENIZER, {}) as engine:
        assert engine.submit(session).result(WAIT).passes == 3


def test_a_tokenizer_that_somebody_else_sets_to_cut_texts() -> None:
    """It is the team's own copy that counts."""
    shared = small.byte_level()
    team = Team(shared)
    long = "a long problem " * 50
    expected = list(team.session(long).prompt)
    shared(["a b c d", "e"], padding="max_length", truncation=True, max_length=3)
    assert list(team.session(long).prompt) == expected
    assert list(Team(shared).session(long).prompt) == expected


async def answer_later(text: str) -> str:
    """An answer format that nobody waits for."""
    return text


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (InvalidInterruptError, {"interrupts": [RedundancyCheck]}),
        (InvalidAnswerFormatError, {"answer": answer_later}),
        (InvalidTeamError, {"may_end": "yes"}),
    ],
)
def test_arguments_that_look_right(kind: type[Exception], options: dict[str, Any]) -> None:
    """They would fail only at the first step's end, or never."""
    with pytest.raises(kind):
        Team(TOKENIZER, **options)


def test_banned_tokens_beyond_the_vocabulary() -> None:
    """Refused before any work."""
    sampling = SamplingParams(banned=[10**6])  # type: ignore[arg-type]
    with Engine(model()) as engine, pytest.raises(Exception, match="1000000"):
        engine.submit(make(TOKENIZER, sampling=sampling).session("Q?"))
