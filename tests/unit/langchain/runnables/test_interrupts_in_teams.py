"""Interrupts as runnables, asked by a real team on a real engine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda

from hogwild_agents.langchain.runnables import (
    Interrupt,
    InterruptRecord,
    RedundancyCheck,
    as_interrupt,
)
from hogwild_agents.team import InterruptContext, Interruption, Result
from hogwild_agents.team import RedundancyCheck as TeamCheck
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.langchain.runnables.contexts import context, explode, half_time, shout, shout_later
from tests.unit.team.scripted import tokenizer
from tests.unit.team.voices import STEP, hold, make


def test_what_becomes_of_what_is_given() -> None:
    """The plain check is the team's own, which the engine need not wait for; the rest is itself."""
    plain = as_interrupt(RedundancyCheck(every=7, question="Mine? "))
    assert type(plain) is TeamCheck
    assert plain == TeamCheck(7, "Mine? ")
    piped, named = RedundancyCheck() | shout, RedundancyCheck(name="mine")
    for given_one in (half_time, TeamCheck(), Interrupt(half_time), piped, named, None, 5):
        assert as_interrupt(given_one) is given_one
    assert as_interrupt(RunnableLambda(half_time))(context()) == half_time(context())

    async def later(_: InterruptContext) -> str:
        return "late"

    assert as_interrupt(later)(context()) == "late"


def run(lines: Any, interrupts: list[Any], **options: Any) -> Result:
    """What a real team on a real engine comes to whose workers say `lines`."""
    asked = [as_interrupt(interrupt) for interrupt in interrupts]
    chosen = {"budget": 60, "reply_tokens": 1, "interrupts": asked} | options
    return hold(make(tokenizer(), **chosen).session("Hi."), lines)[0]


LINES = {0: STEP * 2 + "Yes, I stop.\n\n" + STEP * 9, 1: STEP * 9}


@pytest.mark.parametrize(
    "check",
    [
        RedundancyCheck(every=18),
        Interrupt(RedundancyCheck(every=18)),
        RedundancyCheck(every=18).with_config(tags=["quick"]),
        RunnableBranch((lambda _: False, explode), RedundancyCheck(every=18)),
    ],
    ids=["plain", "wrapped", "config", "branch"],
)
def test_a_team_asks_a_check(check: Runnable[Any, Any]) -> None:
    """The same records as with the team's own, question and answer, but for the name."""
    own = run(LINES, [TeamCheck(every=18)])
    result = run(LINES, [check])
    assert own.interruptions
    assert [(one.worker, one.index, one.asked, one.answer) for one in result.interruptions] == [
        (one.worker, one.index, one.asked, one.answer) for one in own.interruptions
    ]
    plain = [one.text.replace("\u200b", "") for one in result.interruptions]
    assert plain == [QUESTION] * len(own.interruptions)
    assert True in [one.answer for one in result.interruptions]


def test_a_team_takes_them_as_they_are() -> None:
    """Without `as_interrupt` too, as they are plain callables."""
    asked = [RedundancyCheck(every=18), Interrupt(half_time)]
    team = make(tokenizer(), interrupts=asked, budget=60, reply_tokens=1)
    result = hold(team.session("Hi."), LINES)[0]
    assert {one.name for one in result.interruptions} == {"RedundancyCheck", "half_time"}
    assert True in [one.answer for one in result.interruptions]


def test_a_team_asks_what_was_composed() -> None:
    """Piped, added, and asynchronous; each under its name, in order."""
    asked = [
        RedundancyCheck(every=18) | shout,
        RedundancyCheck(every=30, question="Mine? ") | shout_later,
        Interrupt(half_time) + (lambda seen: f"[{seen.worker}] " if seen.index == 3 else None),
    ]
    result = run({0: STEP * 9, 1: STEP * 9}, asked)
    texts = {one.text.replace("\u200b", "") for one in result.interruptions}
    assert {QUESTION.upper(), "MINE? ", "[Alice] ", "[Bob] "} <= texts
    assert {one.name for one in result.interruptions} == {
        "RedundancyCheck",
        "half_time + <lambda>",
    }
    for one in result.interruptions:
        (step,) = (s for s in result.steps_of(one.worker) if s.index == one.index)
        assert one.text in step.text


def test_the_record_of_a_team() -> None:
    """It comes through the metadata unharmed."""
    result = run(LINES, [RedundancyCheck(every=18)])
    kept = AIMessage("", response_metadata={"interruptions": [*map(asdict, result.interruptions)]})
    assert InterruptRecord().invoke(kept) == list(result.interruptions)
    assert all(isinstance(one, Interruption) for one in InterruptRecord().invoke(kept))
