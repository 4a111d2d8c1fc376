"""Notes, stop and cancel at unusual times, and tokenizers that are used elsewhere too."""

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
    """This is the most natural use of the two."""
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
    """All notes until a pass are read in one pass; the team goes on thinking."""
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
    """Half a surrogate pair is replaced; a note that is too long stays unheard."""
    with voices(TOKENIZER, {}) as engine:
        session = make(TOKENIZER, budget=5, reply_tokens=1).session("Q?")
        for text in ("x" * model().max_length, "\ud800 hi"):
            session.hear(text)
        result = engine.submit(session).result(WAIT)
    assert result.unheard == ("x" * model().max_length,)
    assert len(result.history) == 1


def test_stop_waits_for_no_interrupt() -> None:
    """A reply comes even while an interrupt hangs; its late text is dropped."""
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
    """A refused session is still usable."""
    session = make(TOKENIZER, budget=3, reply_tokens=1).session("Q?")
    closed = Engine(model())
    closed.close()
    with pytest.raises(Exception, match="closed"):
        closed.submit(session)
    with voices(TOKENIZER, {}) as engine:
        assert engine.submit(session).result(WAIT).passes == 3


def test_a_tokenizer_that_somebody_else_sets_to_cut_texts() -> None:
    """Only the team's own copy matters."""
    shared = small.byte_level()
    team = Team(shared)
    long = "a long problem " * 50
    expected = list(team.session(long).prompt)
    shared(["a b c d", "e"], padding="max_length", truncation=True, max_length=3)
    assert list(team.session(long).prompt) == expected
    assert list(Team(shared).session(long).prompt) == expected


async def answer_later(text: str) -> str:
    """An asynchronous answer format."""
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
    """Otherwise they would fail only at the end of the first step, or never."""
    with pytest.raises(kind):
        Team(TOKENIZER, **options)


def test_banned_tokens_beyond_the_vocabulary() -> None:
    """Refused before any work."""
    sampling = SamplingParams(banned=[10**6])  # type: ignore[arg-type]
    with Engine(model()) as engine, pytest.raises(Exception, match="1000000"):
        engine.submit(make(TOKENIZER, sampling=sampling).session("Q?"))
