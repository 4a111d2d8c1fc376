"""From a team's unfinished work to an answer."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough
from pydantic import BaseModel

from hogwild_agents.errors import InvalidAnswerFormatError, InvalidMessageError
from hogwild_agents.langchain.runnables import EarlyFinisher, FinalAnswer, NoAnswerError
from hogwild_agents.langchain.runnables.finishers import Unfinished
from hogwild_agents.team import Result, Snapshot, Step
from hogwild_agents.team.events import Timings
from tests.unit.langchain.runnables.pieces import Runs, check_runs, check_ways, message
from tests.unit.team.scripted import tokenizer
from tests.unit.team.voices import STEP, WAIT, make, voices

NOBODY: Runnable[Any, Any] = RunnableLambda(lambda _: pytest.fail("the model was asked"))


def result(*steps: str, unfinished: str = "", **fields: Any) -> Result:
    """A result whose steps are Alice's."""
    made = [
        Step("Alice", n + 1, f"{text}\n\n", f"{text}\n\n", 9, 1, 9) for n, text in enumerate(steps)
    ]
    rest = (Step("Bob", 1, unfinished, unfinished, 9, 1, 9),) if unfinished else ()
    told: dict[str, Any] = {"finish_reason": "budget", **fields}
    timings = Timings(None, None, None, 1.0)
    return Result(
        workers=("Alice", "Bob"),
        layout="combined",
        history=tuple(made),
        unfinished=rest,
        timings=timings,
        **told,
    )


def asked(partial: Any, problem: Any = "2 + 2?", **fields: Any) -> list[Any]:
    """What the model is asked."""
    seen: list[Any] = []

    def model(messages: Any) -> AIMessage:
        seen.extend(messages)
        return AIMessage(r"\boxed{4}")

    finisher = EarlyFinisher(RunnableLambda(model), **fields)
    finisher.invoke({"problem": problem, "partial": partial})
    return seen


# Where an answer stands already.


@pytest.mark.parametrize(
    "stated",
    [
        r"So far: \boxed{4}, and now we",
        AIMessage(r"It is \boxed{4}."),
        AIMessageChunk(content=r"It is \boxed{4}."),
        AIMessage("Hm", response_metadata={"answer": "4"}),
        message("", Alice="Hm.", Bob=r"It is \boxed{4}"),
        Snapshot(64, 64, "4", "4}", 2),
        result(answer="4"),
        result("Hm.", reply=r"It is \boxed{4}."),
        result("Hm.", r"It is \boxed{4}.", "Sure."),
        result("Hm.", unfinished=r"It is \boxed{4}, so"),
    ],
    ids=range(10),
)
def test_an_answer_that_was_stated(stated: Any) -> None:
    """Nobody is asked, wherever it stands."""
    finisher = EarlyFinisher(NOBODY)
    given_one = {"problem": "2 + 2?", "partial": stated}
    assert finisher.invoke(given_one) == "4"
    assert asyncio.run(finisher.ainvoke(given_one)) == "4"


@pytest.mark.parametrize(
    "partial",
    [
        "so 17 * 4 = 68",
        AIMessage("so 17 * 4 = 68"),
        result("so 17 * 4 = 68."),
        message("", Alice="68"),
    ],
    ids=range(4),
)
def test_a_number_under_way_is_no_answer(partial: Any) -> None:
    """What is unfinished counts only by the strict rule; the model's reply by the lenient one."""
    model: Runnable[Any, Any] = RunnableLambda(lambda _: AIMessage("It is 69."))
    finisher = EarlyFinisher(model, answer="number")
    assert finisher.invoke({"problem": "Hi.", "partial": partial}) == 69


def test_the_newest_answer_counts() -> None:
    steps = result(r"\boxed{1}", r"\boxed{2}", "Hm.")
    assert EarlyFinisher(NOBODY).invoke({"problem": "Hi.", "partial": steps}) == "2"


# Where there is none.


def test_what_the_model_is_asked() -> None:
    """The conversation, what was thought by whom, and the question."""
    conversation = [SystemMessage("Be brief."), HumanMessage("2 + 2?")]
    thoughts = message("Hm, so", Alice="I add.\n\n", Bob="I check.")
    seen = asked(thoughts, conversation)
    assert seen[:2] == conversation
    assert seen[2] == AIMessage("**Alice:** I add.\n\n**Bob:** I check.\n\nHm, so")
    assert seen[3].type == "human"
    assert seen[3].content.startswith("Time is up.")
    assert seen[3].content.endswith("state the final answer now, as `\\boxed{answer}`.")
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("partial", "thought"),
    [
        ("**Alice [1]:** I add.", "**Alice [1]:** I add."),
        (result("I add.", unfinished="And I"), "**Alice [1]:** I add.\n\n**Bob [1]:** And I"),
        (result("I add.", reply="Hm"), "**Alice [1]:** I add.\n\nHm"),
        (Snapshot(64, 64, None, "four}", 2), "four}"),
        (AIMessage("Hm"), "Hm"),
        (AIMessage("", additional_kwargs={"reasoning_content": "Hm"}), "Hm"),
    ],
    ids=range(6),
)
def test_what_was_thought(partial: Any, thought: str) -> None:
    """Of each kind of partial result, as text."""
    human, work, _ = asked(partial)
    assert (human.content, work.type, work.content) == ("2 + 2?", "ai", thought)


@pytest.mark.parametrize(
    "partial", ["", " \n", AIMessage(""), result(), Snapshot(1, 0, None, "", 0)]
)
def test_nothing_was_thought(partial: Any) -> None:
    """Then no empty message stands for it."""
    assert [one.type for one in asked(partial)] == ["human", "human"]


def test_any_form_of_problem() -> None:
    for problem in ("2 + 2?", ["2 + 2?"], HumanMessage("2 + 2?"), [("user", "2 + 2?")]):
        assert asked("Hm.", problem)[0].content == "2 + 2?"


def test_answers_of_any_type() -> None:
    """A class of pydantic's, and a final answer with fallbacks of its own."""

    class Sum(BaseModel):
        total: int

    model: Runnable[Any, Any] = RunnableLambda(lambda _: AIMessage('Fine: {"total": 4}'))
    given_one = {"problem": "2 + 2?", "partial": "Hm."}
    assert EarlyFinisher(model, answer=Sum).invoke(given_one) == Sum(total=4)
    final = FinalAnswer("choice", fallback="number")
    assert EarlyFinisher(model, answer=final).invoke(given_one) == 4
    assert EarlyFinisher(model, answer="choice").invoke(given_one) is None
    with pytest.raises(NoAnswerError):
        EarlyFinisher(model, answer=FinalAnswer("choice", strict=True)).invoke(given_one)
    assert '"total"' in asked("Hm.", answer=Sum)[-1].content


@settings(deadline=None)
@given(st.text(), st.integers())
def test_whatever_was_thought_the_model_has_the_last_word(thought: str, number: int) -> None:
    """Any text without an answer in it."""
    if FinalAnswer().invoke(thought) is None:
        model = GenericFakeChatModel(messages=iter([f"It is \\boxed{{{number}}}."]))
        finisher = EarlyFinisher(model, answer="number")
        assert finisher.invoke({"problem": "Hi.", "partial": thought}) == number


# How it is used.


def reply(_: Any) -> AIMessage:
    """A model that always says the same."""
    return AIMessage(r"\boxed{4}")


def test_every_way_to_run_it() -> None:
    finisher = EarlyFinisher(RunnableLambda(reply))
    given_one = {"problem": "2 + 2?", "partial": "Hm."}
    check_ways(finisher, given_one, "4")
    check_ways(finisher, {"problem": "2 + 2?", "partial": message("", Alice="Hm.")}, "4")
    check_runs(finisher, given_one, "EarlyFinisher")
    runs = Runs()
    finisher.invoke(given_one, {"callbacks": [runs]})
    assert runs.names == ["EarlyFinisher", "reply", "FinalAnswer"]
    assert repr(finisher) == "EarlyFinisher(model=RunnableLambda(reply), answer=FinalAnswer())"
    takes = finisher.get_input_jsonschema()["$defs"]["Unfinished"]
    assert takes["required"] == ["problem", "partial"]


def test_in_a_chain() -> None:
    """A model that may not finish, and one that finishes for it."""
    unfinished = GenericFakeChatModel(messages=iter(["Two and two make", r"\boxed{4}"]))
    spare = GenericFakeChatModel(messages=iter([r"\boxed{5}"]))
    thought = RunnableParallel(problem=RunnablePassthrough(), partial=unfinished)
    chain = thought | EarlyFinisher(spare)
    assert [chain.invoke("2 + 2?"), chain.invoke("2 + 2?")] == ["5", "4"]


def test_it_awaits_the_model() -> None:
    """With asyncio, models that are only asynchronous do."""

    async def later(_: Any) -> AIMessage:
        await asyncio.sleep(0)
        return AIMessage(r"\boxed{4}")

    finisher = EarlyFinisher(RunnableLambda(later))
    given_one = {"problem": "2 + 2?", "partial": "Hm."}
    assert asyncio.run(finisher.ainvoke(given_one)) == "4"


def test_arguments_for_the_model() -> None:
    """What is bound reaches it."""
    seen: list[Any] = []

    def answer(_: Any, *, stop: list[str]) -> AIMessage:
        seen.append(stop)
        return AIMessage(r"\boxed{4}")

    model: Any = answer
    finisher = EarlyFinisher(RunnableLambda(model)).bind(stop=["."])
    given_one: Any = {"problem": "2 + 2?", "partial": "Hm."}
    assert finisher.invoke(given_one) == "4"
    assert asyncio.run(finisher.ainvoke(given_one)) == "4"
    assert seen == [["."], ["."]]


def test_what_a_cancelled_team_had() -> None:
    """A real session, cancelled in the middle; what it wrote reaches the model."""
    going = threading.Event()

    def before(passes: int) -> None:
        if passes == 30:
            going.set()

    team = make(tokenizer(), interrupts=[], budget=100_000, reply_tokens=1)
    with voices(team.tokenizer, {0: STEP * 3, 1: STEP}, before) as engine:
        handle = engine.submit(team.session("2 + 2?"))
        assert going.wait(WAIT)
        handle.cancel()
        ended = handle.result(WAIT)
    assert ended.finish_reason == "cancelled"
    human, work, _ = asked(ended)
    assert human.content == "2 + 2?"
    assert work.content.count("Ok, so.") == 4
    assert "**Bob [1]:**" in work.content


def test_a_team_that_ran_out_of_budget() -> None:
    """Its answer is taken as it was found, also where the format is another."""
    team = make(tokenizer(), interrupts=[], budget=30, finisher="answer")
    with voices(team.tokenizer, {0: STEP, 1: STEP, -1: "4}"}) as engine:
        ended = engine.submit(team.session("2 + 2?")).result(WAIT)
    assert ended.finish_reason == "budget"
    assert ended.answer == "4"
    finish = partial(EarlyFinisher(NOBODY).invoke)
    assert finish({"problem": "2 + 2?", "partial": ended}) == "4"
    lost = replace(ended, answer=None)
    assert EarlyFinisher(RunnableLambda(reply)).invoke({"problem": "Hi.", "partial": lost}) == "4"


# What it refuses.


@pytest.mark.parametrize(
    ("given_one", "words"),
    [
        ("Hi.", "'Hi.' is nothing to finish: give a dict with problem and partial"),
        (result(), "is nothing to finish"),
        ({"partial": "Hm."}, "is nothing to finish"),
        ({"problem": "Hi."}, "is nothing to finish"),
        ({"problem": "", "partial": "Hm."}, "is empty"),
        ({"problem": 5, "partial": "Hm."}, "The problem 5 is no conversation"),
        ({"problem": "Hi.", "partial": None}, "None is no partial result: give a message"),
        ({"problem": "Hi.", "partial": 5}, "5 is no partial result"),
    ],
    ids=range(8),
)
def test_what_cannot_be_finished(given_one: Any, words: str) -> None:
    with pytest.raises(InvalidMessageError, match=words):
        EarlyFinisher(NOBODY).invoke(given_one)
    with pytest.raises(InvalidMessageError, match=words):
        asyncio.run(EarlyFinisher(NOBODY).ainvoke(given_one))


def test_formats_that_are_none() -> None:
    with pytest.raises(InvalidAnswerFormatError):
        EarlyFinisher(NOBODY, answer="poem")


def test_the_input_has_a_type() -> None:
    """For those who write chains with types."""
    made: Unfinished = {"problem": "Hi.", "partial": "Hm."}
    assert EarlyFinisher(RunnableLambda(reply)).invoke(made) == "4"
