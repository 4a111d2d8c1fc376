"""How thinking ends, and how it leads to an answer."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hogwild_agents.engine import Engine, Handle
from hogwild_agents.errors import ContextLengthError
from hogwild_agents.team import (
    AnswerFound,
    InterruptContext,
    Note,
    RedundancyCheck,
    ReplyToken,
    Result,
    SnapshotTaken,
    StepBegun,
    ThinkingEnded,
    Token,
)
from hogwild_agents.team.steps import REPLY_HEADER
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

BOX = "\\boxed{"
REPLY = f"{REPLY_HEADER}\n\n"
TIME_IS_UP = "the final answer is \\boxed{"
END = 257
"""The end token of bytes."""


def ends_of(played: Played) -> tuple[str, str | None, Any]:
    """Why the thinking ended, why the reply did, and the answer."""
    result = played.result
    return result.finish_reason, result.reply_reason, result.answer


def first_writes(played: Played, passes: int) -> list[int]:
    """How many tokens all rows wrote in each pass after a number of passes of thinking."""
    skipped = played.result.reading_passes + passes
    return [sum(row.wrote for row in rows) for rows in played.passes[skipped:]]


# Why.


def test_an_answer_in_a_finished_step_ends_the_thinking() -> None:
    """The pass that finishes the step is the last; the worker who stated the answer replies."""
    lines: dict[str, str | list[int]] = {
        begin("Bob"): f" So {BOX}7}}.\n\n",
        REPLY: [ord("7"), END],
    }
    played = play(team_of(), lines)
    assert ends_of(played) == ("answer", "stop", "7")
    (found,) = played.of(AnswerFound)
    assert (found.worker, found.answer, found.at) == ("Bob", "7", 16)
    assert played.result.tokens == {"Alice": 16, "Bob": 16}
    assert played.result.reply == "7"
    last = played.views()[-1][-1]
    assert last.endswith(f"{REPLY}7")
    assert last.index(f"I'm Bob. So {BOX}7}}.\n\n") < last.index("I'm Alice.xx")


def test_the_first_of_two_answers_counts() -> None:
    """Within a pass, workers count in the order of the team."""
    lines = {begin(name): f"{BOX}{name}}}.\n\n" for name in ("Bob", "Alice")}
    lines[begin("Bob")] = f"{BOX}Rober}}.\n\n"
    played = play(team_of(), lines)
    assert played.result.answer == "Alice"
    assert [event.worker for event in played.of(AnswerFound)] == ["Alice"]
    assert [step.worker for step in played.result.steps] == ["Alice", "Bob"]


@pytest.mark.parametrize("finisher", ["reply", "answer"])
def test_an_answer_in_an_unfinished_step_counts_when_time_is_up(finisher: str) -> None:
    """There is an event for it, and the worker who stated it writes on."""
    played = play(team_of(finisher=finisher, budget=10), {begin("Bob"): f"{BOX}7}}"})
    assert played.result.finish_reason == "budget"
    assert played.result.answer == "7"
    (found,) = played.of(AnswerFound)
    assert (found.worker, found.answer, found.at) == ("Bob", "7", 10)
    if finisher == "reply":
        assert played.views()[-1][-1].endswith(f"I'm Bob.{BOX}7}}x\n\n{REPLY}xx")
    else:
        assert played.result.reply_reason is None


@pytest.mark.parametrize("layout", ["combined", "contiguous", "interleaved"])
def test_workers_may_end_one_by_one(layout: str) -> None:
    """A worker that has ended writes no more; its text stays, with a blank line after it."""
    lines = {begin("Alice"): [*b"Bye", END], begin("Bob"): [*b"So long", END], REPLY: "ok"}
    played = play(team_of(layout=layout, may_end=True), lines)
    assert ends_of(played) == ("ended", "length", None)
    assert [step.text for step in played.result.steps] == [
        "I'm Alice.Bye\n\n",
        "I'm Bob.So long\n\n",
    ]
    assert played.result.unfinished == ()
    assert played.result.tokens == {"Alice": 4, "Bob": 8}
    assert all(event.text == "" for event in played.of(Token) if event.token == END)
    seen = [view for rows in played.views() for view in rows if view.endswith("I'm Bob.So l")]
    alice = "**Alice [1]:** I'm Alice.Bye\n\n"
    assert [alice in view for view in seen] == [True]


def test_one_alone_ends_by_itself() -> None:
    """It ends with its closing tag or an end token, and nothing is added to its text."""
    team = team_of(1, "thinking", reply_tokens=5)
    close = team.tokenizer.thinking_ids[1]
    for mark in (close, min(team.tokenizer.ends)):
        x = team.tokenizer.encode("x")[0]

        def script(seen: tuple[int, ...], mark: int = mark, x: int = x) -> int:
            return mark if len(seen) == len(team.session("Q?").prompt) + 4 else x

        played = play(team, script)
        assert ends_of(played) == ("ended", "length", None)
        assert [step.text for step in played.result.steps] == ["xxx"]
        assert played.views()[-1][0].endswith("xxx</think>\n\nxxxx")


def test_a_model_without_thinking_replies_at_once() -> None:
    """One worker alone is a plain chat model."""
    team = team_of(1, reply_tokens=4)
    played = play(team, {"": "hey!"})
    assert ends_of(played) == ("ended", "length", None)
    assert (played.result.passes, played.result.reply_tokens) == (0, 4)
    assert REPLY_HEADER not in played.views()[-1][0]
    assert played.result.steps == played.result.unfinished == ()


def test_nobody_may_end_unless_told() -> None:
    """The end token is banned."""
    played = play(team_of(budget=3), {"": [END]})
    assert ends_of(played)[0] == "budget"
    assert played.result.tokens == {"Alice": 3, "Bob": 3}


def test_a_stop_before_the_first_pass_still_gives_a_reply() -> None:
    """No worker thinks, but notes are read."""
    stopped = threading.Event()

    def stop(handle: Handle[Any, Result]) -> None:
        handle.stop()
        stopped.set()

    model = scripted()
    model.before = lambda _: stopped.wait(WAIT)
    note = "Just say it is fine."
    played = play(team_of(), {REPLY: "fine"}, model=model, notes=[note], meanwhile=stop)
    result = played.result
    assert result.finish_reason == "stopped"
    assert result.reply == "fin"
    assert [str(part) for part in result.history if isinstance(part, Note)] == [
        f"**Note from the user:** {note}\n\n"
    ]


def test_a_stop_waits_for_no_interrupt() -> None:
    """The step for which the interrupt was called never begins."""
    submitted: Future[Handle[Any, Result]] = Future()
    never = threading.Event()

    def slow(_: InterruptContext) -> str:
        submitted.result(WAIT).stop()
        never.wait(WAIT)
        return "Too late."

    team = team_of(interrupts=[RedundancyCheck(every=1), slow])
    lines = {begin("Alice"): "One.\n\n", begin("Bob"): "Two.\n\n"}
    try:
        played = play(team, lines, meanwhile=submitted.set_result)
    finally:
        never.set()
    assert played.result.finish_reason == "stopped"
    assert played.result.interruptions == ()
    assert played.result.unfinished == ()
    assert {event.index for event in played.of(StepBegun)} == {1}
    assert played.result.reply == "xxx"


# Cancelled.


def test_cancelled_while_waiting() -> None:
    """A session that has not begun has no results, and its notes are unheard."""
    team = team_of()
    model = scripted(Lines(team, {}), pages=60)
    held, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        held.set()
        assert go_on.wait(WAIT)

    model.before = hold
    with Engine(model) as engine:
        first = engine.submit(team.session("Q?"))
        assert held.wait(WAIT)
        second = engine.submit(team.session("R?"))
        second.say("Hello?")
        second.cancel()
        go_on.set()
        result = second.result(WAIT)
        assert first.result(WAIT).finish_reason == "budget"
    assert result.finish_reason == "cancelled"
    assert result.unheard == ("Hello?",)
    assert (result.passes, result.history, result.tokens) == (0, (), {})


@pytest.mark.parametrize("after", [3, 8, 23, 24])
def test_cancelled_on_the_way(after: int) -> None:
    """During the thinking or the reply; the result holds everything until then."""
    submitted: Future[Handle[Any, Result]] = Future()
    model = scripted()
    count = [0]

    def before(_: Any) -> None:
        count[0] += 1
        if count[0] == after:
            submitted.result(WAIT).cancel()

    model.before = before
    team = team_of(snapshots=[20])
    lines = {begin("Alice"): "One.\n\n", REPLY: "Well"}
    played = play(team, lines, model=model, meanwhile=submitted.set_result)
    result = played.result
    assert result.finish_reason == "cancelled"
    assert count[0] == after
    assert result.passes + result.reply_passes + result.reading_passes == after
    assert result.passes == min(after - 2, 20)
    assert result.reply == "Well"[: after - 22 if after > 22 else 0]
    assert (result.timings.thought is None) == (after < 22)


# From thoughts to an answer.


def test_the_reply_closes_the_thinking_with_the_models_own_mark() -> None:
    """The closing tag ends the thinking; no header is needed."""
    team = team_of(2, "thinking", budget=5)
    played = play(team, {"": "x"})
    close = team.tokenizer.thinking_ids[1]
    last = played.passes[-1][-1].seen
    assert team.tokenizer.decode(last).endswith("I'm Alice.xxxxx\n\n</think>\n\nxx")
    assert last.count(close) == 1
    assert all(close not in row.seen for row in played.passes[-4])
    assert played.result.reply == "xxx"


def test_no_reply_may_hold_a_mark_of_thinking() -> None:
    """A model that wants to think again cannot."""
    team = team_of(1, "thinking", budget=2, reply_tokens=6)
    close = team.tokenizer.thinking_ids[1]
    played = play(team, lambda seen: team.tokenizer.thinking_ids[len(seen) % 2])
    assert played.result.reply_reason == "length" or played.result.reply_reason == "stop"
    assert "think>" not in played.result.reply
    assert sum(row.seen.count(close) for row in played.passes[-1]) == 1


def test_the_early_finisher_answers_if_nobody_has() -> None:
    """It continues the worker's own step, and writes only as much as the answer needs."""
    played = play(team_of(finisher="answer", budget=4), {TIME_IS_UP: "12} and more"})
    assert ends_of(played) == ("budget", "stop", "12")
    assert (played.result.reply, played.result.reply_tokens) == ("12}", 3)
    assert [event.text for event in played.of(ReplyToken)] == ["1", "2", "}"]
    assert [event.worker for event in played.of(AnswerFound)] == [None]
    assert "I'm Alice.xxxx\n\nTime is up" in played.views()[-1][-1]


def test_the_early_finisher_is_silent_if_somebody_has_answered() -> None:
    """There is nothing left to say."""
    lines = {begin("Bob"): f"{BOX}7}}.\n\n"}
    played = play(team_of(finisher="answer", snapshots=[15]), lines)
    assert ends_of(played) == ("answer", None, "7")
    assert (played.result.reply, played.result.reply_passes) == ("", 0)
    assert [s.answer for s in played.result.snapshots] == ["7"]
    assert len(played.passes) == 2 + played.result.passes


@pytest.mark.parametrize("finisher", ["reply", "answer"])
@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_the_finisher_goes_on_from_the_live_cache(layout: str, finisher: str) -> None:
    """Its passes read nothing twice: the new text first, then one token each."""
    team = team_of(3, layout=layout, finisher=finisher, reply_tokens=6)
    lines = {begin("Alice"): "One.\n\n", TIME_IS_UP: "12"}
    played = play(team, lines, problem="Why? " * 100)
    first, *rest = first_writes(played, 20)
    words = REPLY if finisher == "reply" else team.answer.opening.lstrip()
    assert first == len(team.tokenizer.encode("\n\n" + words)) + 3
    assert rest == [1] * (played.result.reply_tokens - 1)
    assert len(rest) > 3


def test_snapshots_are_taken_in_passing() -> None:
    """Each is the answer that the team would have given; no worker waits for it or sees it."""
    team = team_of(snapshots=[3, 5, 20], budget=20)
    played = play(team, {TIME_IS_UP: "12}", REPLY: "ok!"})
    assert [(s.budget, s.passes, s.answer, s.text, s.tokens) for s in played.result.snapshots] == [
        (3, 3, "12", "12}", 3),
        (5, 5, "12", "12}", 3),
        (20, 20, "12", "12}", 3),
    ]
    assert [event.at for event in played.of(SnapshotTaken)] == [6, 8, 20]
    assert len(played.passes) == 2 + 20 + 3
    thinking = played.views()[2:22]
    assert all("Time is up" not in view for rows in thinking for view in rows[:2])
    assert played.result.unfinished[0].text == "I'm Alice." + "x" * 20


def test_an_answer_makes_later_snapshots_needless() -> None:
    """Snapshots at budgets that were not reached have the answer that was found."""
    lines = {begin("Bob"): f"{BOX}7}}.\n\n", TIME_IS_UP: "1}"}
    played = play(team_of(snapshots=[4, 16, 20], budget=30), lines)
    assert [(s.budget, s.passes, s.answer) for s in played.result.snapshots] == [
        (4, 4, "1"),
        (16, 12, "7"),
        (20, 12, "7"),
    ]


# A full context.


def least_length(team: Any) -> int:
    """The shortest context in which a session may begin."""
    for length in range(60, 4096):
        try:
            team.session("Q?").check(scripted(max_length=length))
        except ContextLengthError:
            continue
        return length
    raise AssertionError("no context is long enough")


@pytest.mark.parametrize("finisher", ["reply", "answer"])
@pytest.mark.parametrize(
    ("workers", "layout"),
    [(1, "solo"), *itertools.product([2, 8], ["combined", "interleaved", "contiguous"])],
)
def test_a_full_context_still_leaves_room_for_an_answer(
    workers: int, layout: str, finisher: str
) -> None:
    """However the team fills it, nothing fails, and the answer gets its promised tokens."""
    team = team_of(
        workers,
        "bytes" if workers > 1 else "thinking",
        layout=layout if workers > 1 else "combined",
        finisher=finisher,
        budget=200,
        reply_tokens=5,
        may_end=False,
        interrupts=[RedundancyCheck(every=30)],
    )
    least = least_length(team)
    for length in range(least, least + 60, 17):
        model = scripted(max_length=length)
        played = play(team, {"": "ab. \n\ncd", BOX: "1" * 99}, model=model)
        assert played.error is None
        assert played.result.finish_reason == "length"
        limit = 5 if finisher == "reply" else team.answer.max_tokens
        assert played.result.reply_tokens == limit
        assert max(len(row.seen) for rows in played.passes for row in rows) <= length


def test_what_is_said_too_late_is_unheard() -> None:
    """A note that would use the finisher's room is returned as unheard."""
    team = team_of(budget=100)
    least = least_length(team)
    played = play(team, {}, model=scripted(max_length=least + 60), notes=["short", "long " * 40])
    assert played.error is None
    assert [part.text for part in played.result.history if isinstance(part, Note)] == ["short"]
    assert played.result.unheard == ("long " * 40,)
    assert played.result.reply == "xxx"


def test_a_snapshot_where_the_context_ends_is_taken_once() -> None:
    """The last budget that is reached, and the budgets that never will be."""
    team = team_of(budget=200, snapshots=range(1, 201))
    played = play(team, {TIME_IS_UP: "1}"}, model=scripted(max_length=least_length(team) + 20))
    assert played.result.finish_reason == "length"
    passes = played.result.passes
    assert [s.passes for s in played.result.snapshots] == [min(n, passes) for n in range(1, 201)]
    assert len(played.of(SnapshotTaken)) == 200
    assert [event.reason for event in played.of(ThinkingEnded)] == ["length"]


# Faults on the way.


def test_a_note_is_not_lost_with_the_pass_that_reads_it() -> None:
    """The note counts as unheard."""
    model = scripted()
    model.before = fail_after(2)
    played = play(team_of(), {}, model=model, notes=["one", "two"])
    assert isinstance(played.error, ArithmeticError)
    assert played.result.unheard == ("one", "two")
    assert played.result.history == ()
