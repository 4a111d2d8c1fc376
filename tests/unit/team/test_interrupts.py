"""Interrupts: what they know, what may go wrong, and who waits for them."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hogwild_agents.errors import HogwildError, InvalidInterruptError, SessionFailedError
from hogwild_agents.team import InterruptContext, Note, RedundancyCheck, Result
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.team.scripted import tokenizer
from tests.unit.team.voices import STEP, WAIT, hold, make, model, voices


def run(lines: Any, problem: Any = "Hi.", **options: Any) -> Result:
    """The result of a team that writes `lines`."""
    team = make(tokenizer(), **({"budget": 60, "reply_tokens": 1} | options))
    return hold(team.session(problem), lines)[0]


# What an interrupt knows and says.


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_what_an_interrupt_knows(layout: str) -> None:
    """What the worker can see, and the state of the session."""
    seen: list[InterruptContext] = []
    problem = [{"role": "user", "content": "Hi."}]
    result = run(
        {0: STEP * 2, 1: "I wait. " + STEP},
        problem,
        interrupts=[seen.append],
        layout=layout,
        budget=19,
    )
    first, second, third = seen
    assert first == InterruptContext(
        worker="Alice",
        index=2,
        workers=("Alice", "Bob"),
        problem=problem,
        history=result.history[:1],
        others={"Bob": "" if layout == "interleaved" else "I'm Bob.I wait. O"},
        passes=9,
        budget=19,
        tokens=18,
        since=18,
    )
    assert (second.worker, second.index, third.worker, third.index) == ("Bob", 2, "Alice", 3)
    assert second.others == {"Alice": "" if layout == "interleaved" else "Ok, so.\n"}
    assert [str(part) for part in second.history] == [
        f"**Alice [1]:** I'm Alice.{STEP}",
        f"**Bob [1]:** I'm Bob.I wait. {STEP}",
    ]
    assert third.history == result.history
    assert (second.tokens, second.since, third.tokens, third.since) == (34, 34, 36, 36)


def test_an_interrupt_knows_what_was_said() -> None:
    """A note is a part of the history."""
    seen: list[InterruptContext] = []
    session = make(tokenizer(), interrupts=[seen.append], budget=12, reply_tokens=1).session("Hi.")
    session.hear("Hurry.")
    result, _ = hold(session, {0: STEP})
    assert seen[0].history == result.history == (Note("Hurry.", 0), *result.steps)


def test_interrupts_speak_in_order() -> None:
    """All of them in one step; the text that follows answers the check."""

    def before(context: InterruptContext) -> str | None:
        return f"({context.since}) " if context.index == 2 else None

    def after(context: InterruptContext) -> str:
        return "" if context.index == 2 else f"[{context.since}]"

    end = lambda context: f"{context.worker}, " if context.worker == "Alice" else None  # noqa: E731
    result = run(
        {0: STEP + "yes.\n\n", 1: "x" * 99},
        interrupts=[before, RedundancyCheck(18), after, end],
        budget=20,
    )
    step, then = result.steps_of("Alice")[1:]
    assert step.text == f"(18) {QUESTION}Alice, yes.\n\n"
    assert then.text.startswith("[30]Alice, ")
    names = [(one.name, one.index, one.answer) for one in result.interruptions]
    assert names == [
        ("before", 2, None),
        ("RedundancyCheck", 2, True),
        ("<lambda>", 2, None),
        ("after", 3, None),
        ("<lambda>", 3, None),
    ]
    assert {one.followed for one in result.interruptions[:3]} == {"yes.\n\n"}


@pytest.mark.parametrize("text", ["Stop.\n\nNow: ", "x" * 700, "\n\n", "Ünïcode … ", " "])
def test_an_interrupt_may_say_anything(text: str) -> None:
    """Long, with blank lines, in any letters: it begins a step and never ends one."""
    result = run({0: STEP + "It is.\n\n"}, interrupts=[lambda _: text], budget=18)
    assert result.steps[1].text == text + "It is.\n\n"
    assert result.steps[1].written == "It is.\n\n"
    assert result.interruptions[0].followed == "It is.\n\n"


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_interrupt_may_be_silent(nothing: str | None) -> None:
    """Then nothing is recorded, and nothing is written."""
    result = run({0: STEP * 3}, interrupts=[lambda _: nothing], budget=30)
    assert result.interruptions == ()
    assert [step.text for step in result.steps[1:]] == [STEP, STEP]


class Counted:
    """An interrupt that is an object."""

    def __call__(self, context: InterruptContext) -> str:
        return f"{context.index}. "

    def read(self, followed: str) -> int | None:
        """Understands how many words followed."""
        return len(followed.split()) if followed.endswith("\n") else None


def test_an_interrupt_may_understand_its_answer() -> None:
    """With a method `read`, like the redundancy check."""
    result = run({0: STEP + STEP}, interrupts=[Counted()], budget=20)
    assert [(one.name, one.text, one.answer) for one in result.interruptions] == [
        ("Counted", "2. ", 2),
        ("Counted", "3. ", None),
    ]


# Faults, and time.


def fails(_: InterruptContext) -> str:
    raise LookupError("no such book")


def exits(_: InterruptContext) -> str:
    raise SystemExit(3)


async def asynchronous(_: InterruptContext) -> str:
    return "never"


FAULTS: dict[str, tuple[Any, type[BaseException], str]] = {
    "raises": (fails, LookupError, "no such book"),
    "exits": (exits, SystemExit, "3"),
    "false": (lambda _: False, InvalidInterruptError, r"returned bool \(False\)"),
    "number": (lambda _: 5, InvalidInterruptError, r"<lambda> returned int \(5\): return a text"),
    "coroutine": (lambda s: asynchronous(s), InvalidInterruptError, "<lambda> is asynchronous"),
    "arguments": (lambda: "hm", TypeError, "takes 0 positional arguments"),
}


@pytest.fixture
def no_threads() -> Callable[[], bool]:
    """Returns a check that every thread that the test started has ended."""
    before = {*threading.enumerate()}

    def ended() -> bool:
        left = [thread for thread in threading.enumerate() if thread not in before]
        for thread in left:
            thread.join(WAIT)
        return not any(thread.is_alive() for thread in left)

    return ended


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_one_session_only(fault: str, no_threads: Callable[[], bool]) -> None:
    """It ends with its partial result; other sessions are not affected."""
    interrupt, error, words = FAULTS[fault]
    bad = make(tokenizer(), interrupts=[RedundancyCheck(18), interrupt], budget=30)
    good = make(tokenizer(), interrupts=[], budget=30, reply_tokens=1)
    with voices(tokenizer(), {0: STEP * 2}) as engine:
        handles = [engine.submit(team.session("Hi.")) for team in (bad, good)]
        with pytest.raises(SessionFailedError, match=words) as caught:
            handles[0].result(WAIT)
        assert handles[1].result(WAIT).passes == 30
    assert type(caught.value.__cause__) is error
    partial = caught.value.partial
    assert (partial.finish_reason, partial.passes) == ("error", 9)
    assert [step.text for step in partial.steps] == [f"I'm Alice.{STEP}"]
    assert partial.interruptions == ()  # the step never began, so nothing was written
    assert partial.error.startswith(error.__name__)
    assert model().pool.used_pages == 0
    assert no_threads()


class Slow:
    """An interrupt that blocks until it is released."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.thread = ""

    def __call__(self, context: InterruptContext) -> str:
        self.thread = threading.current_thread().name
        self.asked.set()
        assert self.go.wait(WAIT)
        return f"{context.passes} "


def test_nobody_waits_for_the_interrupts_of_others(no_threads: Callable[[], bool]) -> None:
    """Another session begins and ends while an interrupt blocks."""
    slow = Slow()
    waiting = make(tokenizer(), interrupts=[slow], budget=12, reply_tokens=1)
    other = make(tokenizer(), interrupts=[lambda _: "Hm. "], budget=30, reply_tokens=1)
    with voices(tokenizer(), {0: STEP * 2}) as engine:
        first = engine.submit(waiting.session("Hi."))
        assert slow.asked.wait(WAIT)
        assert engine.submit(other.session("Hi.")).result(WAIT).passes == 30
        assert not first.done
        slow.go.set()
        result = first.result(WAIT)
    assert result.interruptions[0].text == "9 "
    assert result.passes == 12
    assert slow.thread == "hogwild-Slow"
    assert no_threads()


@pytest.mark.parametrize("way", ["cancel", "close", "stop", "leave"])
def test_a_session_may_end_while_an_interrupt_thinks(
    way: str, no_threads: Callable[[], bool]
) -> None:
    """A cancel and a close do not wait; a stop takes effect once the interrupt has returned."""
    slow = Slow()
    team = make(tokenizer(), interrupts=[slow], budget=12, reply_tokens=1)
    with voices(tokenizer(), {0: STEP * 2}) as engine:
        with engine.submit(team.session("Hi.")) as handle:
            assert slow.asked.wait(WAIT)
            if way == "stop":
                handle.stop()
                slow.go.set()
                handle.result(WAIT)
            elif way != "leave":
                {"cancel": handle.cancel, "close": engine.close}[way]()
        result = handle.result(WAIT)
    assert result.finish_reason == ("stopped" if way == "stop" else "cancelled")
    assert [step.text for step in result.steps][:1] == [f"I'm Alice.{STEP}"]
    assert model().pool.used_pages == 0
    slow.go.set()
    assert no_threads()


def test_an_asynchronous_answer_is_closed() -> None:
    """So there is no warning that it was never awaited."""
    made: list[Any] = []

    def late(context: InterruptContext) -> Any:
        made.append(asynchronous(context))
        return made[-1]

    with pytest.raises(SessionFailedError, match="late is asynchronous: give a plain function"):
        run({0: STEP}, interrupts=[late])
    assert [inspect.getcoroutinestate(one) for one in made] == [inspect.CORO_CLOSED]


# What is refused when the team is made.


class Awaited:
    """An object that is called asynchronously."""

    async def __call__(self, _: InterruptContext) -> str:
        return "never"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([None], "None is not callable"),
        ([RedundancyCheck(), "hm"], "'hm' is not callable"),
        ("hm", "'hm' is not a list"),
        (RedundancyCheck(), "RedundancyCheck.* is not a list: put it into one"),
        ({fails}, "is not a list"),
        ([asynchronous], "asynchronous is asynchronous: give a plain function"),
        ([functools.partial(asynchronous)], "is asynchronous"),
        ([Awaited()], "Awaited is asynchronous"),
    ],
)
def test_what_cannot_interrupt(given: Any, words: str) -> None:
    """The message says what is wrong, and what to do."""
    with pytest.raises(InvalidInterruptError, match=words) as caught:
        make(tokenizer(), interrupts=given)
    assert isinstance(caught.value, HogwildError)
