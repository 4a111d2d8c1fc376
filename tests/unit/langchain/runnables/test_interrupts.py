"""Interrupts as runnables: alone and composed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    chain,
)

from hogwild_agents import HogwildError
from hogwild_agents.errors import InvalidInterruptError, InvalidMessageError
from hogwild_agents.langchain.runnables import (
    BaseInterrupt,
    Interrupt,
    InterruptRecord,
    RedundancyCheck,
    as_interrupt,
)
from hogwild_agents.team import InterruptContext
from hogwild_agents.team import RedundancyCheck as TeamCheck
from hogwild_agents.team.interrupts import name_of
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.langchain.runnables.contexts import context, explode, half_time, shout, shout_later
from tests.unit.langchain.runnables.pieces import RECORDS, Runs, check_runs, check_ways, message

WAIT = 10.0
"""Seconds after which a test gives up on what should come at once."""

LATE = "(Half of the time is over.) "
"""What `half_time` writes."""


# What one says.


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 3000))
def test_a_check_is_the_team_s(every: int, since: int) -> None:
    """It asks the same thing at the same time, and reads answers alike."""
    check, team = RedundancyCheck(every), TeamCheck(every)
    assert check(context(since)) == check.invoke(context(since)) == team(context(since))
    for followed in ("yes, I do.", "No. I go on", "(yes/no): no.", "perhaps", ""):
        assert check.read(followed) is team.read(followed)


def test_an_interrupt_is_what_its_function_says() -> None:
    """Plain functions, objects, lambdas, runnables and asynchronous functions."""

    async def later(seen: InterruptContext) -> str | None:
        await asyncio.sleep(0)
        return half_time(seen)

    made: list[Any] = [half_time, later, RunnableLambda(half_time), RunnableLambda(later)]
    for function in [*made, Interrupt(half_time), partial(half_time)]:
        interrupt = Interrupt(function)
        assert interrupt(context()) == half_time(context())
        assert interrupt(context(passes=1)) is None
        assert asyncio.run(interrupt.ainvoke(context())) == half_time(context())
    assert Interrupt(TeamCheck(5))(context()) == QUESTION


def test_as_a_decorator() -> None:
    """The name stays."""

    @Interrupt
    def remind(seen: InterruptContext) -> str:
        return f"({seen.worker}!) "

    assert remind(context()) == "(Bob!) "
    assert remind.name == name_of(remind) == "remind"


@pytest.mark.parametrize(
    ("interrupt", "name"),
    [
        (RedundancyCheck(), "RedundancyCheck"),
        (RedundancyCheck() | shout, "RedundancyCheck"),
        (RedundancyCheck(name="mine"), "mine"),
        (Interrupt(half_time), "half_time"),
        (Interrupt(half_time, name="late"), "late"),
        (Interrupt(TeamCheck()), "RedundancyCheck"),
        (Interrupt(half_time) | shout | shout, "half_time"),
        (Interrupt(RunnableLambda(half_time)), "half_time"),
        (Interrupt(RedundancyCheck().with_config(tags=["a"])), "RedundancyCheck"),
        (RedundancyCheck() + half_time, "RedundancyCheck + half_time"),
        (RedundancyCheck().pipe(shout, name="loud"), "loud"),
    ],
)
def test_names(interrupt: BaseInterrupt, name: str) -> None:
    """In records, in traces, and wherever a function's name is looked for."""
    assert name_of(interrupt) == interrupt.get_name() == interrupt.__name__ == name
    runs = Runs()
    interrupt.invoke(context(), {"callbacks": [runs]})
    assert runs.names[0] == name


def test_every_way_to_run_them() -> None:
    check_ways(RedundancyCheck(512), context(), QUESTION)
    check_ways(RedundancyCheck(512), context(1), None)
    check_ways(RedundancyCheck(512) | shout, context(), QUESTION.upper())
    check_ways(Interrupt(half_time), context(passes=1), None)
    check_ways(Interrupt(half_time) | shout, context(), "(HALF OF THE TIME IS OVER.) ")
    check_runs(RedundancyCheck(512), context(), "RedundancyCheck")
    check_runs(Interrupt(half_time) | shout, context(), "half_time")
    assert repr(RedundancyCheck(every=512) | shout) == (
        "RedundancyCheck(then=(RunnableLambda(shout),), every=512)"
    )
    assert eval(repr(RedundancyCheck(every=512))) == RedundancyCheck(512)


def test_schemas() -> None:
    """From a context to a text or nothing."""
    for interrupt in (RedundancyCheck(), Interrupt(half_time) | shout):
        takes: Any = interrupt.get_input_schema()
        takes.model_validate(context())
        assert interrupt.get_output_jsonschema()["anyOf"] == [{"type": "string"}, {"type": "null"}]


# Composed.


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", None, "a", "bc"]), min_size=1, max_size=4))
def test_what_follows_is_asked_only_about_a_text(outcomes: list[str | None]) -> None:
    """Where one link says nothing, the rest is left out; with and without asyncio."""
    asked: list[int] = []

    def link(place: int) -> Callable[[Any], Any]:
        def say(_: Any) -> str | None:
            asked.append(place)
            return outcomes[place]

        return say

    piped: Any = Interrupt(link(0))
    for place in range(1, len(outcomes)):
        piped |= link(place)
    silent = next((place for place, said in enumerate(outcomes) if not said), None)
    expected = outcomes[-1] if silent is None else None
    reached = list(range(len(outcomes) if silent is None else silent + 1))
    assert piped(context()) == expected
    assert asked == reached
    assert asyncio.run(piped.ainvoke(context())) == expected
    assert asked == reached * 2


def test_what_may_follow() -> None:
    """Functions, templates, models, parsers, maps: whatever takes a text, or what came before."""
    model = GenericFakeChatModel(messages=iter(["Tust du Doppeltes?", "never asked"]))
    template = ChatPromptTemplate.from_template("Into German: {text}")
    check = RedundancyCheck(512) | template | model | StrOutputParser()
    assert isinstance(check, RedundancyCheck)
    assert check(context(1)) is None
    assert check(context()) == "Tust du Doppeltes?"
    both: Any = {"one": RunnablePassthrough(), "two": shout}
    assert (Interrupt(half_time) | both | (lambda said: said["two"]))(context()) == LATE.upper()
    assert RedundancyCheck().pipe(shout, str.strip)(context()) == QUESTION.upper().strip()


def test_both() -> None:
    """They are asked in order; whoever says nothing adds nothing."""
    both = RedundancyCheck(512) + half_time
    assert both(context()) == QUESTION + LATE
    assert both(context(since=1)) == LATE
    assert both(context(passes=1)) == QUESTION
    assert both(context(since=1, passes=1)) is None
    assert both.read("Yes.") is True
    assert (both | shout)(context(since=1)) == LATE.upper()
    assert (both + Interrupt(lambda _: "!"))(context(1, 1)) == "!"
    assert asyncio.run(both.ainvoke(context())) == both(context())


def french(seen: InterruptContext) -> bool:
    return seen.worker == "Alice"


@pytest.mark.parametrize(
    "made",
    [
        RunnableBranch((french, RunnableLambda(explode)), RedundancyCheck(512)),
        RunnableLambda(explode).with_fallbacks([RedundancyCheck(512)]),
        RedundancyCheck(512).with_config(tags=["quick"]),
        RedundancyCheck(512).with_retry(),
        RedundancyCheck(512).bind(),
        RunnablePassthrough() | RedundancyCheck(512),
        RedundancyCheck().configurable_fields(every=ConfigurableField(id="every")),
        RunnableLambda(lambda _: RedundancyCheck(512)),
    ],
    ids=lambda made: type(made).__name__,
)
def test_runnables_around_one(made: Runnable[Any, Any]) -> None:
    """Each of them is an interrupt again, which reads answers if a check is inside."""
    interrupt = as_interrupt(made)
    assert isinstance(interrupt, Interrupt)
    assert interrupt(context()) == QUESTION
    assert interrupt(context(since=1)) is None
    readable = not isinstance(made, RunnableLambda)
    assert interrupt.read("Yes.") is (True if readable else None)
    assert (interrupt | shout)(context()) == QUESTION.upper()


def test_fallbacks_of_what_follows() -> None:
    """A translator that fails is replaced by another."""
    spare = RunnableLambda(explode).with_fallbacks(
        [RunnableLambda(shout)], exceptions_to_handle=(AssertionError,)
    )
    assert (RedundancyCheck() | spare)(context()) == QUESTION.upper()


def test_bound_arguments() -> None:
    """They reach the function."""

    def remind(seen: InterruptContext, *, words: str = "Hurry") -> str:
        return f"({words}, {seen.worker}!) "

    bound = Interrupt(remind).bind(words="Rest")
    assert as_interrupt(bound)(context()) == "(Rest, Bob!) "
    assert asyncio.run(bound.ainvoke(context())) == "(Rest, Bob!) "


def test_fields_left_open() -> None:
    check = RedundancyCheck().configurable_fields(every=ConfigurableField(id="every"))
    assert check.invoke(context(600)) is None
    assert check.invoke(context(600), {"configurable": {"every": 512}}) == QUESTION
    assert RedundancyCheck().partial(every=5, name="often") == RedundancyCheck(5, name="often")


# Asynchronous parts.


@pytest.mark.parametrize(
    "interrupt",
    [
        RedundancyCheck() | shout_later,
        RedundancyCheck() | RunnableLambda(shout_later),
        RedundancyCheck() | (RunnablePassthrough() | shout_later),
        RedundancyCheck() | RunnableLambda(shout_later).with_fallbacks([RunnableLambda(shout)]),
        RedundancyCheck() | RunnableBranch((str.isupper, shout), shout_later),
        RedundancyCheck() | {"said": shout_later} | (lambda given: given["said"]),
        Interrupt(RedundancyCheck() | shout_later) + (lambda _: None),
    ],
    ids=range(7),
)
def test_parts_that_are_only_asynchronous(interrupt: BaseInterrupt) -> None:
    """They get an event loop, again and again, however deep they are; silence costs none."""
    for _ in range(2):
        assert interrupt(context()) == QUESTION.upper()
        assert interrupt.invoke(context(1)) is None
        assert asyncio.run(interrupt.ainvoke(context())) == QUESTION.upper()
    runs = Runs()
    interrupt.invoke(context(), {"callbacks": [runs]})
    assert runs.parents.count(None) == 1


def test_nothing_blocks_the_event_loop() -> None:
    """A slow function runs on a thread while the loop goes on."""
    asked = threading.Event()

    def slow(_: InterruptContext) -> str:
        assert asked.wait(WAIT)
        return "late"

    async def main() -> str | None:
        waiting: asyncio.Future[str | None] = asyncio.ensure_future(
            Interrupt(slow).ainvoke(context())
        )
        await asyncio.sleep(0.01)
        asked.set()
        return await waiting

    assert asyncio.run(main()) == "late"


def test_functions_may_take_the_config() -> None:
    """As everywhere in LangChain; what they run is their run's child."""

    @chain
    def quote(text: str) -> str:
        return f"'{text}' "

    def write(seen: InterruptContext, config: RunnableConfig) -> Any:
        return quote.invoke(f"{seen.worker} {config['tags']}", config)

    remind: Any = write

    runs = Runs()
    said = Interrupt(remind).invoke(context(), {"tags": ["a"], "callbacks": [runs]})
    assert said == "'Bob ['a']' "
    assert runs.names == ["write", "write", "quote"]
    assert runs.parents.count(None) == 1


# What they refuse.


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (None, "None is not callable: give a function from an InterruptContext"),
        ("hurry", "'hurry' is not callable"),
        (TeamCheck, "RedundancyCheck is a class: call it"),
    ],
)
def test_functions_that_are_none(function: Any, words: str) -> None:
    with pytest.raises(InvalidInterruptError, match=words):
        Interrupt(function)


@pytest.mark.parametrize(
    "fields", [{"every": 0}, {"every": "9"}, {"every": True}, {"question": ""}]
)
def test_checks_that_make_no_sense(fields: dict[str, Any]) -> None:
    """The error is the team's."""
    with pytest.raises(InvalidInterruptError, match="give a ") as caught:
        RedundancyCheck(**fields)
    with pytest.raises(InvalidInterruptError, match="give a "):
        RedundancyCheck().partial(**fields)
    assert isinstance(caught.value, HogwildError)


@pytest.mark.parametrize("said", [5, AIMessage("Hurry."), ["Hurry."], True])
def test_what_is_no_text(said: Any) -> None:
    """The message names the interrupt, and what it said."""
    for interrupt in (
        Interrupt(lambda _: said, name="mine"),
        RedundancyCheck(name="mine") | RunnableLambda(lambda _: said),
    ):
        with pytest.raises(InvalidInterruptError, match=f"mine returned {type(said).__name__} "):
            interrupt(context())


def test_an_interrupt_takes_no_text() -> None:
    """Two of them are added, not piped."""
    with pytest.raises(InvalidInterruptError, match=r"a link after \| takes a text.* Write \+"):
        RedundancyCheck() | Interrupt(half_time)


def test_errors_come_through() -> None:
    with pytest.raises(AssertionError, match="it was called"):
        Interrupt(explode)(context())
    runs = Runs()
    with pytest.raises(AssertionError):
        Interrupt(explode).invoke(context(), {"callbacks": [runs]})
    assert runs.outcomes == [AssertionError, AssertionError]


# The record.


def test_the_record() -> None:
    """As it was in the result; all of it, or one interrupt's."""
    said = message("Done.", Alice="a", Bob="b")
    assert InterruptRecord().invoke(said) == RECORDS
    assert InterruptRecord("half_time").invoke(said) == RECORDS[1:]
    assert InterruptRecord("nobody").invoke(said) == []
    check_ways(InterruptRecord("half_time"), said, RECORDS[1:])
    check_runs(InterruptRecord(), said, "InterruptRecord")
    assert eval(repr(InterruptRecord("x"))) == InterruptRecord("x")


def test_the_record_of_a_stream() -> None:
    """The last chunk brings it."""
    last = AIMessageChunk(content="", response_metadata=message().response_metadata)

    def model(_: Any) -> Any:
        yield AIMessageChunk(content="Do")
        yield AIMessageChunk(content="ne.")
        yield last

    assert list((RunnableLambda(model) | InterruptRecord()).stream("Hi.")) == [RECORDS]


@pytest.mark.parametrize("given_one", [AIMessage("Hi."), HumanMessage("Hi."), "Hi.", None])
def test_no_record(given_one: Any) -> None:
    with pytest.raises(InvalidMessageError, match="holds no record of interrupts: give a message"):
        InterruptRecord().invoke(given_one)


def test_both_may_be_mapped() -> None:
    """Interrupts and records stand in maps like any runnable."""
    asked = RunnableParallel(check=RedundancyCheck(512), late=Interrupt(half_time))
    assert asked.invoke(context()) == {"check": QUESTION, "late": half_time(context())}
