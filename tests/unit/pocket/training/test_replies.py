"""The teacher's replies: what a team writes to the user after its thinking."""

from __future__ import annotations

import re
from itertools import count, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.tasks import score
from hogwild_agents.pocket.training.dialogues import DialogueKind
from hogwild_agents.pocket.training.teacher import (
    NO_ACCIDENTS,
    Accidents,
    DirectAnswer,
    TaughtToken,
    TaughtTranscript,
)
from hogwild_agents.team import Team
from hogwild_agents.team import events as ev
from tests.unit.pocket.training.playing import (
    TROUBLE,
    accidents,
    drawn,
    end,
    events_of,
    layouts,
    lead,
    play,
    replying,
    seeds,
    sizes,
    stated,
    talk,
    teams,
    text_of,
    tokenizer,
)
from tests.unit.pocket.training.replaying import replay, thoughts

many = settings(max_examples=60, deadline=None, derandomize=True)


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_a_reply_is_a_separate_step(
    seed: int, layout: str, workers: int, size: int, odds: Accidents
) -> None:
    """It follows all others and changes none; the worker that stated the answer writes it."""
    _, transcript = play(seed, layout, workers, size, odds, reply="It is (a) 5.")
    *steps, reply = transcript.steps
    (author,) = (step.worker for step in steps if stated(step) is not None)
    assert reply.worker == author
    assert reply.closes is None
    assert text_of(lead(reply)) == "### Reply\n\n"
    assert text_of(drawn(reply)) == "It is (a) 5."
    assert [token.id for token in reply.tokens].index(end()) == len(reply.tokens) - 1
    written = [token.written for token in reply.tokens[len(lead(reply)) :]]
    first = transcript.passes + 1
    assert lead(reply)[0].written == first
    assert written == [*range(first + 1, first + 1 + len(written))]
    assert all(token.learnt for token in replying(transcript))
    _, silent = play(seed, layout, workers, size, odds)
    assert (steps, transcript.passes) == (silent.steps, silent.passes)


@many
@given(seeds, sizes)
def test_a_single_worker_adds_no_reply(seed: int, size: int) -> None:
    """It ends when its tasks are solved, and learns to."""
    _, silent = play(seed, workers=1, size=size)
    _, transcript = play(seed, workers=1, size=size, reply="It is (a) 5.")
    assert transcript == silent
    (last,) = replying(transcript)
    assert last == TaughtToken(end(), transcript.passes + 2, learnt=True)


@many
@given(seeds)
def test_a_single_worker_replies_at_once(seed: int) -> None:
    """Without a list of tasks it does not think."""
    dialogue, transcript = talk(seed, workers=1)
    (step,) = transcript.steps
    first, *reply, last = step.tokens
    assert (transcript.layout, transcript.passes) == ("solo", 0)
    assert first == TaughtToken(transcript.prompt[-1], 1, learnt=False)
    assert text_of(reply) == dialogue.text
    assert (last.id, last.learnt) == (end(), True)
    assert [token.written for token in step.tokens] == [*range(1, len(step.tokens) + 1)]


@many
@given(seeds, layouts, st.integers(2, 4), accidents)
def test_teams_state_what_is_to_be_done(
    seed: int, layout: str, workers: int, odds: Accidents
) -> None:
    """The first worker does so in its first step, and replies; the others wait."""
    dialogue, transcript = talk(seed, layout, workers, odds)
    assert isinstance(dialogue.problem, DirectAnswer)
    first, *others, reply = transcript.steps
    assert text_of(drawn(first)) == f"\\boxed{{{dialogue.problem.text}}}.\n\n"
    assert {step.worker for step in others} == {*range(1, workers)}
    for step in others:
        assert re.fullmatch(r"(wait( \.\.\.)*(\.\n\n)?)?", text_of(drawn(step)))
    assert (first.worker, reply.worker) == (0, 0)
    assert text_of(drawn(reply)) == dialogue.text


@many
@given(seeds, layouts, teams)
def test_what_a_grammar_forces_is_not_learnt(seed: int, layout: str, workers: int) -> None:
    """The rest of the reply is learnt, and its end."""
    dialogue, transcript = talk(seed, layout, workers)
    *reply, last = replying(transcript)
    assert last.learnt
    learnt = [part.learnt for part in dialogue.reply or () for _ in tokenizer().encode(part.text)]
    assert [token.learnt for token in reply] == learnt


@pytest.mark.parametrize("kind", ["call", "result", "structured", "refusal", "forced"])
@pytest.mark.parametrize(
    ("layout", "workers"),
    [("solo", 1), *product(("combined", "contiguous", "interleaved"), (2, 4))],
)
def test_a_real_team_replies(layout: str, workers: int, kind: DialogueKind) -> None:
    """As the teacher's team does, token by token, in as many passes."""
    layout = "combined" if workers == 1 else layout
    seed = next(n for n in count() if talk(n, workers=1)[0].kind == kind)
    dialogue, transcript = talk(seed, layout, workers)
    result, events = replay(transcript, dialogue.messages, dialogue.tools, "reply")
    _assert_same(events, transcript)
    assert result.reply == dialogue.text
    assert result.reply_reason == "stop"
    assert result.passes == transcript.passes
    assert result.reply_passes == len(replying(transcript))


@pytest.mark.parametrize("odds", [NO_ACCIDENTS, TROUBLE], ids=["smooth", "troubled"])
@pytest.mark.parametrize("layout", ["combined", "contiguous", "interleaved"])
def test_a_real_team_replies_with_its_answers(
    layout: str, odds: Accidents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a list of tasks, with the header that the teacher writes."""
    task_list, transcript = play(3, layout, 3, 4, odds, reply="(a) 5, so there.")
    headers: list[list[int]] = []
    begin = Team.closing_tokens

    def spy(players: Team, between: str) -> list[int]:
        headers.append(begin(players, between))
        return headers[-1]

    monkeypatch.setattr(Team, "closing_tokens", spy)
    result, events = replay(transcript, task_list.text, finisher="reply")
    _assert_same(events, transcript)
    assert result.reply == "(a) 5, so there."
    assert headers == [[token.id for token in lead(transcript.steps[-1])]]
    assert result.answer is not None
    assert score(task_list, result.answer) == 1 or odds is TROUBLE


def test_a_real_single_worker_replies_with_its_work() -> None:
    """The reply is everything that it writes."""
    task_list, transcript = play(3, workers=1, size=4, reply="never said")
    result, _ = replay(transcript, task_list.text, finisher="reply")
    (step,) = transcript.steps
    assert result.reply == text_of(drawn(step))
    assert score(task_list, stated(step)) == 1
    assert (result.passes, result.reply_passes) == (0, len(step.tokens) - 1)


def _assert_same(events: list[ev.Event], transcript: TaughtTranscript) -> None:
    """A session's events are those of the transcript: thoughts with their passes, and the reply."""
    workers = transcript.workers
    assert thoughts(events, workers) == thoughts(events_of(transcript), workers)
    reply = [event.token for event in events if isinstance(event, ev.ReplyToken)]
    assert reply == [token.id for token in replying(transcript)]
