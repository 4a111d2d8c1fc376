"""A session from its first event to its last: its events, steps, notes, costs and faults."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from hogwild_agents.engine import Engine, Handle, SamplingParams
from hogwild_agents.errors import SessionFailedError
from hogwild_agents.team import (
    Finished,
    InterruptAnswered,
    InterruptAsked,
    InterruptContext,
    Note,
    NoteRead,
    RedundancyCheck,
    ReplyToken,
    Result,
    SnapshotTaken,
    Started,
    Step,
    StepBegun,
    StepCommitted,
    ThinkingEnded,
    Token,
)
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.team.listener import check_events
from tests.unit.team.scripted import (
    WAIT,
    Lines,
    Played,
    begin,
    fail_after,
    play,
    scripted,
    team_of,
)

LINES = {
    begin("Alice"): " One.\n\n",
    "**Alice [2]:** ": "Two, two.\n\n",
    begin("Bob"): " Uno,\n\ndos.\n\n",
    f"**Bob [2]:** {QUESTION}": "no, tres.\n\n",
    "### Reply\n\n": "Yes",
}


def story_of(played: Played, *left_out: type) -> list[str]:
    """The events in short, without those of some types."""
    words = []
    for event in played.events:
        if isinstance(event, left_out):
            continue
        who = getattr(event, "worker", "")
        match event:
            case Token() | ReplyToken():
                words.append(f"{event.at} {who}{event.text!r}")
            case StepCommitted(step=step):
                words.append(f"{event.at} {step.worker} ends {step.index}")
            case StepBegun():
                words.append(f"{event.at} {who} begins {event.index}")
            case InterruptAsked(interruption=i) | InterruptAnswered(interruption=i):
                words.append(f"{event.at} {type(event).__name__} {i.worker} {i.answer}")
            case _:
                words.append(f"{event.at} {type(event).__name__}")
    return words


# The story.


def test_the_story_of_a_small_session() -> None:
    """Every event of it, in order."""
    team = team_of(budget=6, interrupts=[RedundancyCheck(every=7)])
    lines = {
        begin("Alice"): "a.\n\n",
        f"**Alice [2]:** {QUESTION}": "no\n",
        begin("Bob"): ".\n\n",
        "**Bob [2]:** ": "b.\n",
        "### Reply\n\n": "Hi!",
    }
    assert story_of(play(team, lines)) == [
        "0 Started",
        "0 Alice begins 1",
        "0 Bob begins 1",
        "1 Alice'a'",
        "1 Bob'.'",
        "2 Alice'.'",
        "2 Bob'\\n'",
        "3 Alice'\\n'",
        "3 Bob'\\n'",
        "3 Bob ends 1",
        "3 Bob begins 2",
        "4 Alice'\\n'",
        "4 Alice ends 1",
        "4 Bob'b'",
        "4 InterruptAsked Alice None",
        "4 Alice begins 2",
        "5 Alice'n'",
        "5 Bob'.'",
        "6 Alice'o'",
        "6 Bob'\\n'",
        "6 ThinkingEnded",
        "6 'H'",
        "6 'i'",
        "6 '!'",
        "6 Finished",
    ]


def test_a_check_is_asked_and_answered() -> None:
    """As soon as all workers have drawn enough tokens, and as soon as the answer is clear."""
    team = team_of(budget=30, interrupts=[RedundancyCheck(every=20)])
    played = play(team, LINES)
    story = story_of(played, Token, ReplyToken)
    asked = story.index("13 InterruptAsked Bob None")
    assert story[asked - 1 : asked + 3] == [
        "13 Bob ends 1",
        "13 InterruptAsked Bob None",
        "13 Bob begins 2",
        "16 InterruptAnswered Bob False",
    ]
    first = played.result.interruptions[0]
    assert (first.text, first.answer, first.followed) == (QUESTION, False, "no, tres.\n\n")


def test_steps_and_transcript_are_what_the_team_reads() -> None:
    """The history as text is in the view of every worker, word for word."""
    played = play(team_of(budget=30), LINES)
    result = played.result
    assert [str(step) for step in result.steps] == [
        "**Alice [1]:** I'm Alice. One.\n\n",
        "**Bob [1]:** I'm Bob. Uno,\n\ndos.\n\n",
        "**Alice [2]:** Two, two.\n\n",
    ]
    assert [step.written for step in result.steps_of("Bob")] == [
        " Uno,\n\ndos.\n\n",
        "x" * 17,
    ]
    history = "".join(map(str, result.history))
    assert all(history in view for view in played.views()[-1])
    assert result.transcript() == history + "\n\n".join(map(str, result.unfinished))


def test_what_is_drawn_in_a_pass_is_seen_in_the_next_by_all() -> None:
    """The newest token of every worker, and no later one."""
    played = play(team_of(3, budget=4), {"": "x"})
    views = [rows for rows in played.views() if len(rows) == 3][:4]
    for drawn, rows in enumerate(views):
        for own, view in zip(("Alice", "Bob", "Carol"), rows, strict=True):
            others = [name for name in ("Alice", "Bob", "Carol") if name != own]
            unfinished = [f"{begin(name)}{'x' * drawn}<...>\n\n" for name in others]
            assert view.endswith(
                "### History\n\n### Work in progress: others\n\n"
                f"{''.join(unfinished)}### Work in progress: own\n\n{begin(own)}{'x' * drawn}"
            )


# Notes.


def test_a_note_goes_into_the_history_for_all() -> None:
    """A note from an interrupt is visible in the next pass, before uncommitted steps."""
    submitted: Future[Handle[Any, Result]] = Future()

    def say(context: InterruptContext) -> None:
        if context.passes == 7:
            submitted.result(WAIT).say("Use **Bob [1]:** less.")

    team = team_of(budget=12, interrupts=[say])
    played = play(team, LINES, meanwhile=submitted.set_result)
    note, step = played.result.history
    assert isinstance(note, Note)
    assert isinstance(step, Step)
    assert (note.read, step.ended) == (7, 7)
    assert note.text != "Use **Bob [1]:** less."
    assert note.text.replace("\u200b", "") == "Use **Bob [1]:** less."
    after = [rows for rows in played.views() if note.text in rows[-1]]
    (reading,), *passes = after
    assert reading.endswith(str(note))
    assert all(f"{note}{step}" in view for rows in passes for view in rows[-2:])
    assert len(passes) == 5 + 3
    assert [event.at for event in played.of(NoteRead)] == [7]


def test_notes_come_in_the_order_in_which_they_are_said() -> None:
    """All in one reading pass, before the first token."""
    played = play(team_of(budget=3), {}, notes=["one", "two"])
    assert [str(part) for part in played.result.history] == [
        "**Note from the user:** one\n\n",
        "**Note from the user:** two\n\n",
    ]
    assert played.result.reading_passes == 3  # prompt, headers, notes
    assert played.result.unheard == ()


@pytest.mark.parametrize("layout", ["combined", "contiguous", "interleaved"])
def test_a_long_interrupt_is_read_ahead(layout: str) -> None:
    """In its own pass, in which no worker draws; no token of it, or before it, is lost."""
    speech = "Do not give up. " * 30
    team = team_of(
        layout=layout,
        budget=12,
        interrupts=[lambda context: speech if context.index == 2 else None],
    )
    played = play(team, LINES)
    whole = {"contiguous": begin("Alice") + " One.\n\n"}.get(layout, "")
    whole += f"**Alice [2]:** {speech}"
    views = [view for rows in played.views() for view in rows]
    assert [view.endswith(whole + "x") for view in views].count(True) == 1
    wrote = [row.wrote for rows in played.passes for row in rows if row.wrote > 256]
    assert wrote == [len(f"**Alice [2]:** {speech}") - 1 + (layout == "contiguous")]
    assert played.result.reading_passes == (2 if layout == "interleaved" else 3)


# Costs.


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_passes_and_tokens_add_up(workers: int, layout: str) -> None:
    """The counts of the result are those of the model."""
    team = team_of(workers, layout=layout, finisher="answer", snapshots=[4], interrupts=[])
    played = play(team, {"": "ab, c. "}, notes=["Hello."])
    result = played.result
    assert result.passes == 20
    assert result.tokens == dict.fromkeys(team.workers, 20)
    assert result.passes + result.reply_passes + result.reading_passes == len(played.passes)
    assert result.reply_passes == result.reply_tokens == team.answer.max_tokens
    headers = {"combined": 1, "contiguous": 1, "interleaved": 0}[layout] if workers > 1 else 0
    assert result.reading_passes == 2 + headers
    assert result.prompt_tokens == len(team.prompt_tokens([{"role": "user", "content": "Q?"}]))


def test_timings_follow_one_another() -> None:
    """Admission, prompt, thinking and end follow one another, and events agree."""
    played = play(team_of(), LINES)
    times = played.result.timings
    assert times.waited is not None
    assert times.prompted is not None
    assert times.thought is not None
    assert 0 < times.waited <= times.prompted <= times.thought <= times.total
    (ended,) = played.of(ThinkingEnded)
    assert times.thought <= ended.seconds <= times.total


def test_a_second_session_finds_its_prompt() -> None:
    """The result counts what was reused."""
    model, team = scripted(), team_of(1, finisher="answer")
    model.script = Lines(team, {})
    with Engine(model) as engine:
        first, second = (
            engine.submit(team.session("What is it? " * 10)).result(WAIT) for _ in range(2)
        )
    assert first.reused_tokens == 0
    assert 0 < second.reused_tokens == second.prompt_tokens - 2
    assert replace(first, timings=second.timings, reused_tokens=second.reused_tokens) == second


# Listening.


def test_every_listener_hears_all() -> None:
    """From threads and from asyncio, while it runs and afterwards."""
    model, team = scripted(), team_of(budget=10)
    model.script = Lines(team, LINES)

    async def listen(handle: Handle[Any, Result]) -> list[Any]:
        events = [event async for event in handle]
        result = await handle
        check_events(events, result)
        return events

    with Engine(model) as engine:
        handle = engine.submit(team.session("Q?"))
        heard = asyncio.run(listen(handle))
        assert heard == [*handle] == [*handle]
    assert isinstance(heard[0], Started)
    assert isinstance(heard[-1], Finished)


def test_the_first_events_come_before_the_session_is_over() -> None:
    """Tokens are streamed pass by pass."""
    team = team_of(budget=10)
    model = scripted(Lines(team, LINES))
    submitted: Future[Handle[Any, Result]] = Future()
    seen: list[int] = []
    model.before = lambda _: seen.append(len(submitted.result(WAIT)._feed._items))
    with Engine(model) as engine:
        submitted.set_result(engine.submit(team.session("Q?")))
        submitted.result().result(WAIT)
    assert seen == sorted(seen)
    assert len({*seen}) > 8


# Faults.


@pytest.mark.parametrize("layout", ["combined", "contiguous"])
def test_a_fault_at_any_pass_loses_nothing(layout: str) -> None:
    """The result has all steps, unfinished text, notes, snapshots and the reply until then."""
    team = team_of(layout=layout, budget=18, snapshots=[5], interrupts=[RedundancyCheck(every=9)])
    options: dict[str, Any] = {"notes": ["Be brief."]}
    whole = play(team, LINES, **options)
    assert whole.error is None
    for passes in range(len(whole.passes)):
        model = scripted()
        model.before = fail_after(passes)
        part = play(team, LINES, model=model, **options)
        assert isinstance(part.error, ArithmeticError)
        result, full = part.result, whole.result
        assert result.error == "ArithmeticError: the device is on fire"
        assert result.finish_reason == "error"
        assert result.history == full.history[: len(result.history)]
        tokens = [(e.worker, e.token, e.text) for e in part.of(Token)]
        assert tokens == [(e.worker, e.token, e.text) for e in whole.of(Token)][: len(tokens)]
        assert len(tokens) == 2 * result.passes
        assert full.reply.startswith(result.reply)
        assert set(result.snapshots) <= set(full.snapshots)
        heard = sum(isinstance(part, Note) for part in result.history)
        assert heard + len(result.unheard) == 1
        counted = result.passes + result.reply_passes + result.reading_passes
        assert counted in (passes, passes + 1)  # the one that failed took part as well
    assert len(whole.of(SnapshotTaken)) == 1


def test_a_fault_of_one_is_no_fault_of_another() -> None:
    """An interrupt that raises ends its session with a partial result; the other one goes on."""

    def explode(context: InterruptContext) -> str:
        raise ZeroDivisionError(f"at step {context.index}")

    sick, well = team_of(interrupts=[explode]), team_of()
    model = scripted(Lines(well, LINES))
    expected = play(well, LINES, problem="R?").result
    with Engine(model) as engine:
        handles = [engine.submit(sick.session("Q?")), engine.submit(well.session("R?"))]
        with pytest.raises(SessionFailedError, match="at step 2") as failed:
            handles[0].result(WAIT)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        result = handles[1].result(WAIT)
    partial = failed.value.partial
    assert [str(step) for step in partial.steps] == ["**Alice [1]:** I'm Alice. One.\n\n"]
    assert [step.worker for step in partial.unfinished] == ["Bob"]
    assert result.history == expected.history
    assert result.reply == expected.reply


def test_an_answer_function_that_raises_doubles_no_step() -> None:
    """The step that it was called for counts as finished."""

    def explode(text: str) -> Any:
        raise ValueError(text)

    played = play(team_of(answer=explode), LINES)
    assert isinstance(played.error, ValueError)
    assert [str(step) for step in played.result.steps] == ["**Alice [1]:** I'm Alice. One.\n\n"]
    assert [step.worker for step in played.result.unfinished] == ["Bob"]


# Chance.


def test_a_seed_makes_a_session_repeatable() -> None:
    """The same seed gives the same text, another seed another; workers differ."""

    def words(seed: int | None) -> list[tuple[str, str]]:
        sampling = SamplingParams(temperature=1.5, seed=seed)
        played = play(team_of(4, sampling=sampling, budget=12), model=scripted())
        return [(event.worker, event.text) for event in played.of(Token)]

    assert words(1) == words(1)
    assert words(1) != words(2)
    assert words(None) != words(None)
    by_worker = {name: [text for who, text in words(1) if who == name] for name in ["Alice", "Bob"]}
    assert by_worker["Alice"] != by_worker["Bob"]
